//! The pages in docs with commands are what happens.

use pleach_tests::daemons::follow;

#[test]
fn page_about_conflicts_says_what_happens() {
    follow(include_str!("../../docs/conflicts.md"), 40);
}

#[test]
fn page_about_history_says_what_happens() {
    follow(include_str!("../../docs/history.md"), 20);
}
