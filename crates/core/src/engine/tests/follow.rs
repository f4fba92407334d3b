//! What a person restored is followed until this disk has it.

use super::*;
use crate::values::Restoring;

/// Brings back a mode that `f` never had.
fn restore_mode(bench: &mut Bench) {
    let node = bench.engine.replica().tree().lookup(&path("f")).unwrap();
    let wanted = Restoring { node, body: None, mode: Some(Mode::new(0o600)) };
    let now = Moment { monotonic_ms: bench.now, unix_ms: 0 };
    bench.engine.restore(now, &[wanted]);
}

#[test]
fn what_is_restored_is_under_way_until_the_disk_has_it_and_comes_before_other_work() {
    let mut bench = with_two_files();
    assert_eq!(bench.engine.followup(&mut bench.engine.follow()), Followup::OnDisk);
    // What comes one by one, in any order.
    bench.engine.set_batch_max(4);
    let directory = DirectoryIndex(0);
    let made = done_there(&bench, "g", |_| {
        std::array::from_fn::<_, 100, _>(|number| Act::Create {
            directory,
            name: Name::new(format!("d{number}").into_bytes()).unwrap(),
            body: Body::Directory { mtime: Timestamp::default() },
            mode: Mode::new(0o777),
            owner: None,
            xattrs: Xattrs::new(),
        })
    });
    let (changes, contents) = (made, Vec::new());
    let message = Message::Changes { changes, contents };
    let mut next = bench.outputs(Input::Received(MasterId([2; 32]), message));
    restore_mode(&mut bench);
    let mut followed = bench.engine.follow();
    assert_eq!(bench.engine.followup(&mut followed), Followup::UnderWay);
    let mut batches = 0;
    while bench.engine.followup(&mut followed) == Followup::UnderWay {
        let effects = next.drain(..).find_map(|output| match output {
            Output::Apply(effects) => Some(effects),
            _ => None,
        });
        bench.disk.begin_batch();
        let effects = effects.expect("there is work in hand");
        let outcomes = effects.iter().map(|effect| bench.disk.perform(effect)).collect();
        next = bench.outputs(Input::Applied(outcomes));
        batches += 1;
    }
    assert_eq!(bench.engine.followup(&mut followed), Followup::OnDisk);
    assert!(batches <= 3, "{batches}: what somebody waits for comes first");
    assert!(bench.engine.status().pending > 50, "and does not wait for the rest");
}

#[test]
fn what_cannot_be_put_on_the_disk_is_no_longer_under_way() {
    let mut bench = with_two_files();
    bench.fails = true;
    restore_mode(&mut bench);
    let mut followed = bench.engine.follow();
    assert_eq!(bench.engine.followup(&mut followed), Followup::UnderWay);
    bench.handle(Input::Tick);
    assert_eq!(bench.engine.followup(&mut followed), Followup::Blocked);
    assert_eq!(bench.engine.followup(&mut bench.engine.follow()), Followup::Blocked);
    bench.fails = false;
    bench.pass(20_000);
    assert_eq!(bench.engine.followup(&mut followed), Followup::OnDisk);
    assert_eq!(bench.engine.followup(&mut bench.engine.follow()), Followup::OnDisk);
}
