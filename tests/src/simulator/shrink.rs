//! Shrinking: leaves items out of a history that fails, as long as it fails in the same way.
//!
//! Zeller and Hildebrandt 2002, "Simplifying and Isolating Failure-Inducing Input": first large parts,
//! then ever smaller ones, down to single items.

use super::history::History;
use super::properties::Property;
use super::trace::Lines;
use super::world::run;

/// A smaller history that violates the same property, after at most so many runs.
#[must_use]
pub fn shrink(history: &History, property: Property, runs_max: usize) -> History {
    let fails = |candidate: &History| {
        run(candidate, Lines::Count).failure.is_some_and(|failure| failure.property == property)
    };
    let mut smallest = history.clone();
    let mut runs = 0;
    let mut part = smallest.len().div_ceil(2);
    while part > 0 && runs < runs_max {
        let mut start = 0;
        let mut left_out = false;
        while start < smallest.len() && runs < runs_max {
            let candidate = smallest.keeping(|at| at < start || at >= start + part);
            runs += 1;
            if fails(&candidate) {
                smallest = candidate;
                left_out = true;
            } else {
                start += part;
            }
        }
        if part == 1 && !left_out {
            break;
        }
        part = if part == 1 { 1 } else { part / 2 };
    }
    smallest
}
