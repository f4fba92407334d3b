//! Who belongs to the store: letting joiners in, the member list as it is known here, and the own addresses
//! in it.

use pleach_core::engine::Input;
use pleach_core::values::Member;
use pleach_core::vocabulary::MasterId;
use tokio::sync::oneshot;

use super::driver::Driver;
use crate::net::{JoinGrant, JoinRequest};
use crate::state::StateError;
use crate::ticket::{Invitation, JoinRefusal};

/// How long it takes at least until the same addresses are written into the member list again.
const SAME_ADDRESSES_MS: u64 = 60_000;

impl Driver {
    /// Lets a joiner in: ticket spent and member written, durably, before the answer.
    pub(super) fn admit(&mut self, request: JoinRequest) {
        let JoinRequest { master, name, addresses, invitation, reply } = request;
        if self.record_invitation(&invitation).is_err() {
            let _ = reply.send(Err(JoinRefusal::Busy));
            return;
        }
        let known = self.engine.replica().member(master);
        if known.is_none_or(|member| member.removed) {
            let store = self.facts.seed.store();
            let member = self.facts.key.sign_member(store, master, &name, addresses);
            self.input(Input::SetMember(member));
            self.perform_outputs();
            if self.recording.has_given_up() {
                let _ = reply.send(Err(JoinRefusal::Busy));
                return;
            }
            tracing::info!(%name, %master, "joined");
        }
        let members = self.engine.replica().members();
        let (network, admitted) = (self.network.clone(), self.known_members());
        let settings = self.facts.store_name.clone().into_bytes();
        let mut first: Vec<Member> = Vec::new();
        let me = self.facts.key.master();
        for member in members {
            if [me, master, self.facts.seed.founder].contains(&member.master) {
                first.insert(0, member);
            } else {
                first.push(member);
            }
        }
        first.truncate(64);
        self.runtime.spawn(async move {
            network.set_members(admitted).await;
            let _ = reply.send(Ok(JoinGrant { members: first, settings }));
        });
    }

    pub(super) fn record_invitation(&mut self, row: &Invitation) -> Result<(), StateError> {
        let bytes = postcard::to_allocvec(row).expect("an invitation can be encoded");
        let recorded = self.state.set_invitation(&row.id.0, Some(&bytes));
        if let Err(error) = &recorded {
            tracing::error!(%error, "an invitation could not be recorded");
        }
        recorded
    }

    /// The members of the replica, and those of the introduction that it does not know yet.
    pub(super) fn known_members(&self) -> Vec<Member> {
        let mut members = self.engine.replica().members();
        for introduced in &self.facts.introduction {
            if !members.iter().any(|member| member.master == introduced.master) {
                members.push(introduced.clone());
            }
        }
        members
    }

    pub(super) fn name_of(&self, master: MasterId) -> String {
        let members = self.known_members();
        members
            .into_iter()
            .find(|member| member.master == master)
            .map_or_else(|| master.to_string()[..12].to_owned(), |member| member.name)
    }

    pub(super) fn advertised(&self) -> Vec<String> {
        let listening = self.network.listen_addrs().into_iter().map(|address| address.to_string());
        self.facts.advertise.iter().cloned().chain(listening).take(16).collect()
    }

    pub(super) fn update_own_addresses(&mut self) {
        let me = self.facts.key.master();
        let addresses = self.advertised();
        let Some(member) = self.engine.replica().member(me) else { return };
        if !addresses.is_empty() && member.addresses != addresses && !member.removed {
            // A clone of this master writes its own there.
            let now = self.clock.elapsed_ms();
            if let Some((told, before)) = &self.addresses_told
                && *before == addresses
                && now < told + SAME_ADDRESSES_MS
            {
                return;
            }
            self.addresses_told = Some((now, addresses.clone()));
            self.input(Input::SetMember(Member { addresses, ..member }));
        }
    }

    pub(super) fn isolate(&mut self, isolated: bool, done: oneshot::Sender<()>) {
        self.isolated = isolated;
        let members = if isolated { Vec::new() } else { self.known_members() };
        let network = self.network.clone();
        self.runtime.spawn(async move {
            network.set_members(members).await;
            let _ = done.send(());
        });
    }
}
