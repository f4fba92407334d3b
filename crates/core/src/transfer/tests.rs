use super::*;

fn hash(byte: u8) -> ContentHash {
    ContentHash([byte; 32])
}

fn node(byte: u8) -> NodeId {
    NodeId([byte; 16])
}

#[test]
fn content_is_asked_for_once_however_many_nodes_want_it() {
    let mut transfer = Transfer::default();
    transfer.want(node(1), hash(1), 10, None);
    transfer.want(node(2), hash(1), 10, None);
    assert_eq!(transfer.requests(0).len(), 1);
    assert!(transfer.requests(0).is_empty());
    assert_eq!(transfer.arrived(hash(1)).nodes.len(), 2);
    assert_eq!(transfer.outstanding(), (0, 0));
    assert!(transfer.at_hand.is_staged(&hash(1)));
}

#[test]
fn failed_content_waits_and_a_new_master_ends_the_wait() {
    let mut transfer = Transfer::default();
    transfer.want(node(1), hash(1), 10, None);
    transfer.requests(0);
    transfer.failed(hash(1), 1000);
    assert!(transfer.requests(1000).is_empty());
    let due = transfer.timeout().expect("a retry is due");
    assert_eq!(transfer.requests(due).len(), 1);
    transfer.failed(hash(1), due);
    transfer.retry_now();
    assert_eq!(transfer.requests(due)[0].attempts, 2);
}

#[test]
fn content_that_no_node_wants_any_more_is_stopped() {
    let mut transfer = Transfer::default();
    transfer.want(node(1), hash(1), 10, None);
    transfer.requests(0);
    transfer.want(node(1), hash(2), 10, None);
    assert_eq!(transfer.take_stopped(), [hash(1)]);
    assert_eq!(transfer.requests(0)[0].hash, hash(2));
}

#[test]
fn small_contents_are_asked_for_as_far_as_there_is_room_in_memory() {
    let mut transfer = Transfer::default();
    let full = INLINE_BYTES_MAX / SMALL_BYTES_MAX;
    for number in 0..=full {
        let mut id = [0; 32];
        id[..8].copy_from_slice(&number.to_le_bytes());
        let node = NodeId(id[..16].try_into().expect("16 bytes"));
        transfer.want(node, ContentHash(id), SMALL_BYTES_MAX, None);
    }
    let asked = transfer.requests(0);
    assert_eq!(asked.len() as u64, full);
    // What comes with changes must not take the room of what is under way.
    transfer.offer(hash(255), vec![0]);
    assert_eq!(transfer.at_hand.inline(&hash(255)), None);
    let bytes: Arc<[u8]> = vec![0; SMALL_BYTES_MAX as usize].into();
    for request in &asked {
        assert_eq!(transfer.arrived_inline(request.hash, bytes.clone()).nodes.len(), 1);
    }
    assert!(transfer.requests(0).is_empty(), "memory is full");
    assert!(transfer.at_hand.spill(&asked[0].hash).is_some());
    assert!(transfer.at_hand.is_staged(&asked[0].hash));
    assert_eq!(transfer.requests(0).len(), 1);
    transfer.at_hand.consumed(&asked[1].hash);
    assert_eq!(transfer.at_hand.inline(&asked[1].hash), None);
}

#[test]
fn content_that_nobody_wants_any_more_is_dropped_when_it_arrives() {
    let mut transfer = Transfer::default();
    transfer.want(node(1), hash(1), 10, None);
    transfer.requests(0);
    transfer.unwant(node(1));
    let arrival = transfer.arrived_inline(hash(1), vec![0; 10].into());
    assert_eq!((arrival, transfer.at_hand.has_inline()), (Arrival::default(), false));
}

#[test]
fn contents_in_flight_are_bounded_but_the_first_always_goes() {
    let mut transfer = Transfer::default();
    transfer.want(node(1), hash(1), 5 << 30, None);
    transfer.want(node(2), hash(2), 5 << 30, None);
    assert_eq!(transfer.requests(0).len(), 1);
    transfer.arrived(hash(1));
    assert_eq!(transfer.requests(0).len(), 1);
}
