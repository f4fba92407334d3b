//! Tickets: who gets in, who does not, and what is durable before the answer.

use pleach_daemon::net::{JoinError, JoinGrant, JoinOutcome, NetEvent, Speaks, join};
use pleach_daemon::ticket::{
    FAILURES_MAX, Invitation, InvitationState, Invitations, JoinRefusal, Ticket, TicketSecret,
};

use crate::fixture::{Master, key, seed};

const FAR_FUTURE: u64 = 1 << 40;

pub(crate) fn invite(a: &Master) -> Ticket {
    let addresses = a.network.listen_addrs().iter().map(ToString::to_string).collect();
    let (ticket, row) = Invitations::issue(seed(), a.id(), addresses, FAR_FUTURE).unwrap();
    a.network.invitation_opened(row);
    ticket
}

/// Plays the driver: lets in whoever has proven a ticket, and keeps the rows it was told to record.
async fn let_in(mut a: Master) -> Vec<Invitation> {
    let mut rows = Vec::new();
    while let Some(event) = a.events.recv().await {
        match event {
            NetEvent::JoinRequest(request) => {
                rows.push(request.invitation);
                let (store, addresses) = (seed().store(), request.addresses);
                let member = a.key.sign_member(store, request.master, &request.name, addresses);
                let members = vec![a.member(), member];
                a.network.set_members(members.clone()).await;
                let grant = JoinGrant { members, settings: b"settings".to_vec() };
                let _ = request.reply.send(Ok(grant));
            }
            NetEvent::InvitationChanged { row, recorded } => {
                rows.push(row);
                let _ = recorded.send(());
            }
            _ => {}
        }
    }
    rows
}

async fn attempt(ticket: &Ticket, number: u8) -> Result<JoinOutcome, JoinError> {
    let addresses = ["/ip4/127.0.0.1/tcp/1".parse().unwrap()];
    join(ticket, &key(number), "web-2", &addresses, &Speaks::default())
        .await
        .map(|(outcome, _)| outcome)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ticket_lets_one_master_in_and_only_one() {
    let a = Master::start(1).await;
    let (ticket, _other_open) = (invite(&a), invite(&a));
    let (a_id, network) = (a.id(), a.network.clone());
    let driver = tokio::spawn(let_in(a));

    let outcome = attempt(&ticket, 2).await.unwrap();
    assert_eq!((outcome.seed, outcome.inviter), (seed(), a_id));
    assert_eq!(outcome.grant.settings, b"settings");
    assert_eq!(outcome.grant.members[1].master, key(2).master());
    assert_eq!(outcome.grant.members[1].name, "web-2");

    let again = attempt(&ticket, 3).await.unwrap_err();
    assert!(matches!(again, JoinError::Refused(JoinRefusal::Used)), "{again}");
    let lost_answer = attempt(&ticket, 2).await;
    assert_eq!(lost_answer.unwrap(), outcome, "the same master may ask again");

    network.shutdown().await;
    drop(network);
    let rows = driver.await.unwrap();
    let spent = InvitationState::Spent { by: key(2).master() };
    assert!(rows.iter().all(|row| row.state == spent));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_stranger_gets_in_once_the_only_invitation_is_used() {
    let a = Master::start(1).await;
    let ticket = invite(&a);
    tokio::spawn(let_in(a));
    attempt(&ticket, 2).await.unwrap();
    let error = attempt(&ticket, 3).await.unwrap_err();
    assert!(matches!(error, JoinError::ShutOut), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_wrong_secrets_void_a_ticket() {
    let a = Master::start(1).await;
    let (ticket, _other_open) = (invite(&a), invite(&a));
    let network = a.network.clone();
    let driver = tokio::spawn(let_in(a));
    let guess = Ticket { secret: TicketSecret([0; 32]), ..ticket.clone() };
    for _ in 1..FAILURES_MAX {
        let error = attempt(&guess, 2).await.unwrap_err();
        assert!(matches!(error, JoinError::Refused(JoinRefusal::WrongSecret)), "{error}");
    }
    let error = attempt(&guess, 2).await.unwrap_err();
    assert!(matches!(error, JoinError::Refused(JoinRefusal::Void)), "{error}");
    let error = attempt(&ticket, 3).await.unwrap_err();
    assert!(matches!(error, JoinError::Refused(JoinRefusal::Void)), "{error}");
    network.shutdown().await;
    drop(network);
    let failures: Vec<_> = driver.await.unwrap().iter().map(|row| row.failures).collect();
    assert_eq!(failures, [1, 2, 3, 4, 5], "each failure is recorded");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn expired_and_unknown_tickets_are_refused() {
    let a = Master::start(1).await;
    let ticket = invite(&a);
    let addresses: Vec<_> = a.network.listen_addrs().iter().map(ToString::to_string).collect();
    let (late, row) = Invitations::issue(seed(), a.id(), addresses, 1).unwrap();
    a.network.invitation_opened(row);
    tokio::spawn(let_in(a));

    let error = attempt(&late, 2).await.unwrap_err();
    assert!(matches!(error, JoinError::Ticket(_)), "{error}");
    let forged = Ticket { expires_unix: FAR_FUTURE, ..late };
    let error = attempt(&forged, 2).await.unwrap_err();
    assert!(matches!(error, JoinError::Refused(JoinRefusal::Expired)), "{error}");
    let unknown = Ticket { invitation: pleach_daemon::ticket::InvitationId([0; 8]), ..ticket };
    let error = attempt(&unknown, 2).await.unwrap_err();
    assert!(matches!(error, JoinError::Refused(JoinRefusal::Unknown)), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_at_the_address_or_somebody_else_is_said() {
    let (a, b) = (Master::start(1).await, Master::start(2).await);
    let ticket = invite(&a);
    let elsewhere = b.network.listen_addrs().iter().map(ToString::to_string).collect();
    let wrong_key = Ticket { addresses: elsewhere, ..ticket.clone() };
    let error = attempt(&wrong_key, 3).await.unwrap_err();
    assert!(matches!(error, JoinError::Unreachable { .. }), "{error}");
    a.network.shutdown().await;
    let error = attempt(&ticket, 3).await.unwrap_err();
    assert!(matches!(error, JoinError::Unreachable { .. }), "{error}");
}
