//! The fuzz targets without a fuzzer: seeds, and seeds with a few bytes changed, the same every time.

use pleach_tests::fuzzing::{TARGETS, Target};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Inputs per target: a few seconds in a debug build.
const INPUTS: u64 = 4_000;

#[test]
fn seeds_are_taken_without_a_panic() {
    for target in &TARGETS {
        let seeds = (target.seeds)();
        assert!(!seeds.is_empty(), "{}", target.name);
        seeds.iter().for_each(|seed| (target.feed)(seed));
    }
}

#[test]
fn ticket_seed_is_a_ticket() {
    use pleach_daemon::ticket::Ticket;
    let seeds =
        TARGETS.iter().find(|target| target.name == "ticket").map(|target| (target.seeds)());
    let text = String::from_utf8(seeds.unwrap()[1].clone()).unwrap();
    assert!(text.parse::<Ticket>().is_ok(), "{text}");
}

#[test]
fn mutated_seeds_are_taken_without_a_panic() {
    for target in &TARGETS {
        let seeds = (target.seeds)();
        for number in 0..INPUTS {
            let input = mutate(target, &seeds, number);
            let fed = std::panic::catch_unwind(|| (target.feed)(&input));
            assert!(fed.is_ok(), "{} panics, input {number}: {input:?}", target.name);
        }
    }
}

fn mutate(target: &Target, seeds: &[Vec<u8>], number: u64) -> Vec<u8> {
    let mut random = ChaCha8Rng::seed_from_u64(number);
    let mut below = |bound: usize| (random.next_u64() % bound.max(1) as u64) as usize;
    let mut input = match number % 16 {
        0 => vec![0; below(200)],
        _ => seeds[below(seeds.len())].clone(),
    };
    assert!(input.len() < 1 << 20, "the seeds of {} are small", target.name);
    for _ in 0..=below(6) {
        let at = below(input.len());
        match below(6) {
            0 => input.truncate(at),
            1 => input.insert(at, below(256) as u8),
            2 if at < input.len() => drop(input.remove(at)),
            3 if at < input.len() => input[at] ^= 1 << below(8),
            4 => {
                let other = &seeds[below(seeds.len())];
                let from = below(other.len());
                input.extend_from_slice(&other[from..]);
            }
            _ if at < input.len() => input[at] = [0, 0x7f, 0x80, 0xff][below(4)],
            _ => {}
        }
    }
    input
}
