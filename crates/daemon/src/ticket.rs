//! Tickets and the invitations behind them.
//!
//! A ticket is one line of text that lets one master join. The inviter keeps an [`Invitation`] for
//! each; the secret proves the ticket, the id only names the invitation. An invitation is open until it
//! is spent, has expired, or five wrong proofs have voided it, and never opens again. Functions here
//! change values only: the caller makes a changed row durable *before* it answers the joiner.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use data_encoding::BASE32_NOPAD;
use pleach_core::vocabulary::MasterId;
use serde::{Deserialize, Serialize};

use crate::identity::{StoreSeed, random};

/// How many addresses a ticket carries at most.
pub const TICKET_ADDRESSES_MAX: usize = 8;
/// How long one address may be, in bytes.
pub const ADDRESS_BYTES_MAX: usize = 256;
/// How many wrong proofs void an invitation.
pub const FAILURES_MAX: u8 = 5;
/// How many invitations an inviter keeps; closed ones are forgotten first.
pub const INVITATIONS_MAX: usize = 256;

const PREFIX: &str = "pleach";
const VERSION: &str = "1";
const TEXT_BYTES_MAX: usize = 8 << 10;
const CHECKSUM_BYTES: usize = 4;
const CONTEXT_CHECKSUM: &str = "pleach 2026 ticket checksum";

/// Names an invitation without giving its secret away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct InvitationId(pub [u8; 8]);

impl fmt::Display for InvitationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// What the holder of a ticket proves to know.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TicketSecret(pub [u8; 32]);

impl fmt::Debug for TicketSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TicketSecret(…)")
    }
}

/// What a master needs to join a store. Its text is one line of lower-case letters and digits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ticket {
    /// The store.
    pub seed: StoreSeed,
    /// The key that the joiner must find at the addresses.
    pub inviter: MasterId,
    /// Multiaddresses of the inviter, at most [`TICKET_ADDRESSES_MAX`].
    pub addresses: Vec<String>,
    /// Which invitation of the inviter.
    pub invitation: InvitationId,
    /// The secret that both sides prove to know.
    pub secret: TicketSecret,
    /// When it expires, in seconds since 1970.
    pub expires_unix: u64,
}

/// Why a text is not a usable ticket.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TicketError {
    /// It does not begin like one.
    #[error("this is not a ticket: one begins with `{PREFIX}{VERSION}`; `pleach invite` prints it")]
    NotATicket,
    /// Another version of pleach made it.
    #[error(
        "this ticket was made by another version of pleach: run the same version on both masters, \
         then `pleach invite` again"
    )]
    OtherVersion,
    /// A character is wrong or missing.
    #[error("this ticket is damaged: copy the whole line that `pleach invite` printed")]
    Damaged,
    /// Its time is over.
    #[error("this ticket expired {0} s ago: ask for a new one with `pleach invite`")]
    Expired(u64),
}

impl Ticket {
    /// Whether it can still be used at `now_unix`.
    pub fn check_expiry(&self, now_unix: u64) -> Result<(), TicketError> {
        match now_unix.checked_sub(self.expires_unix) {
            Some(seconds) => Err(TicketError::Expired(seconds)),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = postcard::to_allocvec(self).map_err(|_| fmt::Error)?;
        let checksum = checksum(&bytes);
        bytes.extend_from_slice(&checksum);
        let text = BASE32_NOPAD.encode(&bytes).to_ascii_lowercase();
        write!(f, "{PREFIX}{VERSION}{text}")
    }
}

impl FromStr for Ticket {
    type Err = TicketError;

    /// Reads a ticket; blanks and line breaks that a terminal or a mail put into it are skipped.
    fn from_str(text: &str) -> Result<Self, TicketError> {
        if text.len() > TEXT_BYTES_MAX {
            return Err(TicketError::Damaged);
        }
        let text: String = text.chars().filter(|letter| !letter.is_whitespace()).collect();
        let text = text.to_ascii_lowercase();
        let body = text.strip_prefix(PREFIX).ok_or(TicketError::NotATicket)?;
        let Some(body) = body.strip_prefix(VERSION) else {
            return Err(match body.starts_with(|digit: char| digit.is_ascii_digit()) {
                true => TicketError::OtherVersion,
                false => TicketError::NotATicket,
            });
        };
        let bytes = BASE32_NOPAD
            .decode(body.to_ascii_uppercase().as_bytes())
            .map_err(|_| TicketError::Damaged)?;
        let split = bytes.len().checked_sub(CHECKSUM_BYTES).ok_or(TicketError::Damaged)?;
        let (payload, sum) = bytes.split_at(split);
        if checksum(payload) != sum {
            return Err(TicketError::Damaged);
        }
        let ticket: Self = postcard::from_bytes(payload).map_err(|_| TicketError::Damaged)?;
        let bounded = ticket.addresses.len() <= TICKET_ADDRESSES_MAX
            && ticket.addresses.iter().all(|address| address.len() <= ADDRESS_BYTES_MAX);
        bounded.then_some(ticket).ok_or(TicketError::Damaged)
    }
}

fn checksum(payload: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let mut hasher = blake3::Hasher::new_derive_key(CONTEXT_CHECKSUM);
    hasher.update(payload);
    let mut sum = [0; CHECKSUM_BYTES];
    hasher.finalize_xof().fill(&mut sum);
    sum
}

/// What became of an invitation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum InvitationState {
    /// Good for one master, unless it has expired.
    Open,
    /// This master joined with it.
    Spent {
        /// Who; asking again it gets the same answer, as the first may have been lost.
        by: MasterId,
    },
    /// Too many wrong proofs.
    Void,
}

/// The inviter's side of a ticket: one row to persist, by id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Invitation {
    /// The key of the row.
    pub id: InvitationId,
    /// What the joiner proves.
    pub secret: TicketSecret,
    /// When it expires, in seconds since 1970.
    pub expires_unix: u64,
    /// Wrong proofs so far.
    pub failures: u8,
    /// Whether it can be used.
    pub state: InvitationState,
}

impl Invitation {
    /// Whether somebody could still join with it at `now_unix`.
    #[must_use]
    pub fn is_open(&self, now_unix: u64) -> bool {
        self.state == InvitationState::Open && now_unix < self.expires_unix
    }
}

/// Why a join is refused. Shown on both sides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum JoinRefusal {
    /// No such invitation.
    #[error("the ticket is unknown here: it was made by another master, or long ago")]
    Unknown,
    /// Somebody has used it.
    #[error("the ticket was already used: each is good for one master")]
    Used,
    /// Its time is over.
    #[error("the ticket has expired")]
    Expired,
    /// Five wrong proofs.
    #[error("the ticket was voided after five failed attempts")]
    Void,
    /// The secret is not the invitation's.
    #[error("the ticket's secret is wrong")]
    WrongSecret,
    /// The joiner's version of pleach is another one.
    #[error("the masters run versions of pleach that do not understand each other")]
    OtherVersion,
    /// What the joiner sent makes no sense.
    #[error("the request was malformed")]
    Malformed,
    /// The store can't take a member now.
    #[error("the store is busy: try again")]
    Busy,
    /// The joiner's key was removed from the store.
    #[error("this master was removed from the store: join with a new directory")]
    Removed,
}

/// The invitations of one inviter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Invitations(BTreeMap<InvitationId, Invitation>);

impl Invitations {
    /// None.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes a ticket that is good until `expires_unix`, and the row that must be durable before
    /// the ticket is shown. [`Invitations::insert`] adds the row.
    pub fn issue(
        seed: StoreSeed,
        inviter: MasterId,
        addresses: Vec<String>,
        expires_unix: u64,
    ) -> Result<(Ticket, Invitation), getrandom::Error> {
        let addresses = addresses.into_iter().take(TICKET_ADDRESSES_MAX).collect();
        let (id, secret) = (InvitationId(random()?), TicketSecret(random()?));
        let ticket = Ticket { seed, inviter, addresses, invitation: id, secret, expires_unix };
        let state = InvitationState::Open;
        Ok((ticket, Invitation { id, secret, expires_unix, failures: 0, state }))
    }

    /// Adds or replaces a row. Returns the row forgotten to keep to [`INVITATIONS_MAX`], if any:
    /// the one that expires first among the closed ones, else among all.
    pub fn insert(&mut self, invitation: Invitation) -> Option<Invitation> {
        self.0.insert(invitation.id, invitation);
        if self.0.len() <= INVITATIONS_MAX {
            return None;
        }
        let forgotten = self
            .0
            .values()
            .min_by_key(|row| (row.state == InvitationState::Open, row.expires_unix, row.id))
            .map(|row| row.id)?;
        self.0.remove(&forgotten)
    }

    /// Forgets a row.
    pub fn remove(&mut self, id: InvitationId) -> Option<Invitation> {
        self.0.remove(&id)
    }

    /// The row of `id`.
    #[must_use]
    pub fn row(&self, id: InvitationId) -> Option<&Invitation> {
        self.0.get(&id)
    }

    /// All rows, by id.
    pub fn rows(&self) -> impl Iterator<Item = &Invitation> {
        self.0.values()
    }

    /// Whether anybody could still join at `now_unix`.
    #[must_use]
    pub fn any_open(&self, now_unix: u64) -> bool {
        self.0.values().any(|row| row.is_open(now_unix))
    }

    /// The secret that `joiner` has to prove for `id`, if the invitation is open or it is `joiner`
    /// who has spent it.
    pub fn usable(
        &self,
        id: InvitationId,
        joiner: MasterId,
        now_unix: u64,
    ) -> Result<TicketSecret, JoinRefusal> {
        let row = self.0.get(&id).ok_or(JoinRefusal::Unknown)?;
        match row.state {
            InvitationState::Spent { by } if by == joiner => Ok(row.secret),
            InvitationState::Spent { .. } => Err(JoinRefusal::Used),
            InvitationState::Void => Err(JoinRefusal::Void),
            InvitationState::Open if now_unix >= row.expires_unix => Err(JoinRefusal::Expired),
            InvitationState::Open => Ok(row.secret),
        }
    }

    /// Counts a wrong proof for `id`; the fifth voids it. Returns the changed row, to be made
    /// durable before the answer; none if it was closed already.
    pub fn fail(&mut self, id: InvitationId) -> Option<Invitation> {
        let row = self.0.get_mut(&id)?;
        if row.state != InvitationState::Open {
            return None;
        }
        row.failures = row.failures.saturating_add(1);
        if row.failures >= FAILURES_MAX {
            row.state = InvitationState::Void;
        }
        Some(row.clone())
    }

    /// Spends `id` for `joiner`, whose proof was right. Returns the changed row, to be made durable
    /// before the answer.
    pub fn spend(
        &mut self,
        id: InvitationId,
        joiner: MasterId,
        now_unix: u64,
    ) -> Result<Invitation, JoinRefusal> {
        self.usable(id, joiner, now_unix)?;
        let row = self.0.get_mut(&id).ok_or(JoinRefusal::Unknown)?;
        row.state = InvitationState::Spent { by: joiner };
        Ok(row.clone())
    }

    /// Opens `id` again: the caller could not make the spending durable, and has not answered.
    pub fn unspend(&mut self, id: InvitationId) {
        if let Some(row) = self.0.get_mut(&id) {
            row.state = InvitationState::Open;
        }
    }
}

impl FromIterator<Invitation> for Invitations {
    fn from_iter<I: IntoIterator<Item = Invitation>>(rows: I) -> Self {
        let mut invitations = Self::new();
        for row in rows {
            invitations.insert(row);
        }
        invitations
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: u64 = 1_000;

    fn issue() -> (Ticket, Invitation) {
        let seed = StoreSeed { founder: MasterId([1; 32]), nonce: [2; 16] };
        let addresses = vec!["/ip4/192.0.2.1/tcp/4747".to_owned()];
        Invitations::issue(seed, MasterId([3; 32]), addresses, NOW + 10).unwrap()
    }

    #[test]
    fn ticket_survives_being_printed_wrapped_and_shouted() {
        let (ticket, _) = issue();
        let text = ticket.to_string();
        assert!(text.chars().all(|letter| letter.is_ascii_lowercase() || letter.is_ascii_digit()));
        assert_eq!(text.parse(), Ok(ticket.clone()));
        let (head, tail) = text.split_at(60);
        assert_eq!(format!("  {head}\n{tail}\n").to_uppercase().parse(), Ok(ticket));
    }

    #[test]
    fn unusable_text_is_told_apart() {
        let (ticket, _) = issue();
        let text = ticket.to_string();
        let check = |text: &str, error| assert_eq!(text.parse::<Ticket>(), Err(error));
        check("", TicketError::NotATicket);
        check("please let me in", TicketError::NotATicket);
        check(&text.replacen("pleach1", "pleach2", 1), TicketError::OtherVersion);
        check(&text[..text.len() - 3], TicketError::Damaged);
        check("pleach1", TicketError::Damaged);
        check(&"pleach1".repeat(10_000), TicketError::Damaged);
        assert_eq!(ticket.check_expiry(NOW + 9), Ok(()));
        assert_eq!(ticket.check_expiry(NOW + 12), Err(TicketError::Expired(2)));
    }

    #[test]
    fn secret_is_never_shown_by_debug() {
        let (ticket, invitation) = issue();
        assert!(format!("{ticket:?}{invitation:?}").contains("TicketSecret(…)"));
    }

    proptest! {
        #[test]
        fn any_altered_character_damages_the_ticket(at in 7usize..200, by in 0u8..32) {
            let text = issue().0.to_string();
            let at = 7 + (at - 7) % (text.len() - 7);
            let letter = b"abcdefghijklmnopqrstuvwxyz234567"[usize::from(by)];
            let mut altered = text.clone().into_bytes();
            altered[at] = letter;
            let altered = String::from_utf8(altered).unwrap();
            prop_assume!(altered != text);
            prop_assert_eq!(altered.parse::<Ticket>(), Err(TicketError::Damaged));
        }

        #[test]
        fn arbitrary_text_never_panics(text in "(pleach1)?[ -~]{0,300}") {
            let _ = text.parse::<Ticket>();
        }
    }

    #[test]
    fn invitation_is_good_for_one_master() {
        let (_, invitation) = issue();
        let (a, b) = (MasterId([7; 32]), MasterId([8; 32]));
        let mut invitations = Invitations::from_iter([invitation.clone()]);
        assert!(invitations.any_open(NOW));
        invitations.spend(invitation.id, a, NOW).unwrap();
        assert!(!invitations.any_open(NOW));
        assert_eq!(invitations.usable(invitation.id, b, NOW), Err(JoinRefusal::Used));
        assert!(invitations.usable(invitation.id, a, NOW + 99).is_ok(), "the answer may be lost");
    }

    #[test]
    fn expired_and_unknown_invitations_are_refused() {
        let (_, invitation) = issue();
        let joiner = MasterId([7; 32]);
        let invitations = Invitations::from_iter([invitation.clone()]);
        let expired = invitations.usable(invitation.id, joiner, NOW + 10);
        assert_eq!(expired, Err(JoinRefusal::Expired));
        let unknown = invitations.usable(InvitationId([0; 8]), joiner, NOW);
        assert_eq!(unknown, Err(JoinRefusal::Unknown));
        assert!(!invitations.any_open(NOW + 10));
    }

    #[test]
    fn fifth_failure_voids_an_invitation() {
        let (_, invitation) = issue();
        let joiner = MasterId([7; 32]);
        let mut invitations = Invitations::from_iter([invitation.clone()]);
        for _ in 1..FAILURES_MAX {
            assert!(invitations.fail(invitation.id).is_some());
            assert!(invitations.usable(invitation.id, joiner, NOW).is_ok());
        }
        assert_eq!(invitations.fail(invitation.id).unwrap().state, InvitationState::Void);
        assert_eq!(invitations.usable(invitation.id, joiner, NOW), Err(JoinRefusal::Void));
        assert_eq!(invitations.fail(invitation.id), None);
    }

    #[test]
    fn invitations_are_bounded_and_open_ones_outlive_closed_ones() {
        let mut invitations = Invitations::new();
        let (_, spent) = issue();
        invitations.insert(spent.clone());
        invitations.spend(spent.id, MasterId([7; 32]), NOW).unwrap();
        let forgotten: Vec<_> =
            (0..INVITATIONS_MAX).filter_map(|_| invitations.insert(issue().1)).collect();
        assert_eq!(forgotten.iter().map(|row| row.id).collect::<Vec<_>>(), [spent.id]);
    }
}
