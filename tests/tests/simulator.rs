//! A bounded run of the simulator, and every seed that ever failed.

use pleach_tests::simulator::{History, Lines, Wishes, run};

/// How many fresh histories an ordinary test run plays; `simulate` plays as many as one likes.
const SEEDS: std::ops::Range<u64> = 1_000_000..1_000_060;

fn check(seed: u64) {
    let history = History::new(seed, Wishes::default());
    let report = run(&history, Lines::Omit);
    if let Some(failure) = report.failure {
        panic!("seed {seed}: {failure}\n{history}");
    }
}

#[test]
fn random_histories_keep_every_property() {
    SEEDS.for_each(check);
}

#[test]
fn same_seed_gives_the_same_trace() {
    for seed in 0..5 {
        let history = History::new(seed, Wishes::default());
        let (first, second) = (run(&history, Lines::Omit), run(&history, Lines::Omit));
        assert!(first.events > 0);
        assert_eq!((first.trace, first.events), (second.trace, second.events), "seed {seed}");
    }
}

#[test]
fn history_shrinks_by_leaving_items_out() {
    let history = History::new(3, Wishes { masters: Some(2), items: Some(10) });
    let half = history.keeping(|at| at % 2 == 0);
    assert_eq!(half.items.len(), 5);
    assert!(half.items.iter().all(|item| history.items.contains(item)));
}
