//! Contents: many small ones, resumed ones, changed ones, and providers that lie.

use std::os::unix::fs::FileExt as _;

use pleach_core::vocabulary::{ContentHash, MasterId, TreePath};
use pleach_daemon::net::{ContentRequest, FetchFailure, NetEvent};

use crate::fixture::{connected, noise};

fn request(hash: ContentHash, size: usize, providers: &[MasterId]) -> ContentRequest {
    let providers = providers.to_vec();
    ContentRequest { hash, size: size as u64, providers, old_version: None }
}

fn hint() -> Option<TreePath> {
    Some(TreePath::root())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_thousand_small_contents_arrive_from_two_providers() {
    let [a, mut b, c] = connected().await;
    let contents: Vec<_> = (0..2000).map(|number| noise(number, 1 + number as usize)).collect();
    let mut requests = Vec::new();
    for bytes in &contents {
        let hash = a.shelf.put(bytes);
        c.shelf.put(bytes);
        requests.push(request(hash, bytes.len(), &[a.id(), c.id()]));
    }
    b.network.fetch(requests.clone());
    b.network.fetch(requests);
    b.wait_fetched(contents.len()).await;
    for bytes in &contents {
        let path = b.shelf.path(&ContentHash::of(bytes));
        assert_eq!(&std::fs::read(path).unwrap(), bytes);
    }
    let total: usize = contents.iter().map(Vec::len).sum();
    assert!(b.received_bytes() < total as u64 * 11 / 10, "each was sent once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn empty_and_large_contents_arrive_whole() {
    let [a, mut b] = connected().await;
    for length in [0, 1 << 20, (1 << 20) + 1, 5_000_001] {
        let bytes = noise(1, length);
        let hash = a.shelf.put(&bytes);
        b.network.fetch(vec![request(hash, length, &[])]);
        b.wait_fetched(1).await;
        assert_eq!(std::fs::read(b.shelf.path(&hash)).unwrap(), bytes);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn interrupted_content_is_resumed_where_it_ended() {
    let [a, mut b] = connected().await;
    let bytes = noise(1, 8 << 20);
    let hash = a.shelf.put(&bytes);
    std::fs::write(b.shelf.partial_path(&hash), &bytes[..6_000_000]).unwrap();
    b.network.fetch(vec![request(hash, bytes.len(), &[a.id()])]);
    b.wait_fetched(1).await;
    assert_eq!(std::fs::read(b.shelf.path(&hash)).unwrap(), bytes);
    assert!(b.received_bytes() < 3_000_000, "{}", b.received_bytes());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn byte_inserted_in_front_of_64_mib_costs_less_than_one_mib() {
    let [a, mut b] = connected().await;
    let mut bytes = noise(1, (64 << 20) + 1);
    std::fs::write(b.shelf.old_path(), &bytes[1..]).unwrap();
    bytes[0] = b'x';
    let hash = a.shelf.put(&bytes);
    let request = ContentRequest { old_version: hint(), ..request(hash, bytes.len(), &[]) };
    b.network.fetch(vec![request]);
    b.wait_fetched(1).await;
    assert!(std::fs::read(b.shelf.path(&hash)).unwrap() == bytes);
    assert!(b.received_bytes() < 1 << 20, "{}", b.received_bytes());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn holes_are_neither_sent_nor_written() {
    let [a, mut b] = connected().await;
    let (length, at) = (64_usize << 20, 40_u64 << 20);
    let mut bytes = vec![0; length];
    bytes[at as usize..at as usize + 5].copy_from_slice(b"hello");
    let hash = ContentHash::of(&bytes);
    let file = std::fs::File::create(a.shelf.path(&hash)).unwrap();
    file.set_len(length as u64).unwrap();
    file.write_all_at(b"hello", at).unwrap();
    b.network.fetch(vec![request(hash, length, &[])]);
    b.wait_fetched(1).await;
    assert!(std::fs::read(b.shelf.path(&hash)).unwrap() == bytes);
    assert!(b.received_bytes() < 1 << 20, "{}", b.received_bytes());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lying_provider_is_refused_and_another_is_asked() {
    let [honest, mut b, liar] = connected().await;
    let (honest_id, liar_id) = (honest.id(), liar.id());
    let small = noise(1, 1000);
    let hash = honest.shelf.put(&small);
    liar.shelf.put_as(&small, &noise(2, 1000));
    // Only the liar has the second one.
    let alone = noise(3, 1000);
    let alone_hash = liar.shelf.put_as(&alone, &noise(4, 1000));
    b.network.fetch(vec![
        request(hash, 1000, &[liar_id, honest_id]),
        request(alone_hash, 1000, &[liar_id]),
    ]);
    let (mut fetched, mut failed, mut refused) = (false, false, 0);
    b.wait("both outcomes", |event| {
        match event {
            NetEvent::Fetched(done) => fetched |= done == hash,
            NetEvent::FetchFailed(done, failure) => {
                failed |= done == alone_hash && failure == FetchFailure::Missing;
            }
            NetEvent::Refused { who, reason } => {
                assert_eq!(who, Some(liar_id));
                assert!(reason.contains("wrong bytes"), "{reason}");
                refused += 1;
            }
            _ => {}
        }
        (fetched && failed && refused >= 1).then_some(())
    })
    .await;
    assert_eq!(std::fs::read(b.shelf.path(&hash)).unwrap(), small);
    assert!(!b.shelf.path(&alone_hash).exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn content_that_nobody_has_fails_and_may_be_asked_for_again() {
    let [a, mut b] = connected().await;
    let bytes = noise(1, 100);
    let hash = ContentHash::of(&bytes);
    for providers in [&[a.id()][..], &[], &[b.id()]] {
        b.network.fetch(vec![request(hash, bytes.len(), providers)]);
        let failure = b
            .wait("failure", |event| match event {
                NetEvent::FetchFailed(failed, failure) if failed == hash => Some(failure),
                _ => None,
            })
            .await;
        assert_eq!(failure, FetchFailure::Missing);
    }
    a.shelf.put(&bytes);
    let mut fetched = false;
    while !fetched {
        b.network.fetch(vec![request(hash, bytes.len(), &[a.id()])]);
        // The one of two connections opened at once that is given up may take a lane with it.
        fetched = b
            .wait("an answer", |event| match event {
                NetEvent::Fetched(arrived) if arrived == hash => Some(true),
                NetEvent::FetchFailed(failed, FetchFailure::Missing) if failed == hash => {
                    Some(false)
                }
                _ => None,
            })
            .await;
    }
}
