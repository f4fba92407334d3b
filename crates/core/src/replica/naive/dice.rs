//! Choices: from a seed, or from a list that proptest can shrink.

/// Where choices come from: a seed, or a list that proptest can shrink.
#[derive(Debug)]
pub(super) enum Dice {
    Seed(u64),
    Listed(std::vec::IntoIter<u32>),
}

impl Dice {
    /// A number below `limit`; 0 once the list is used up.
    pub(super) fn below(&mut self, limit: usize) -> usize {
        let number = match self {
            // SplitMix64 (Steele, Lea, Flood 2014, "Fast splittable pseudorandom number generators").
            Self::Seed(state) => {
                *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
                let mut z = *state;
                z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
                z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
                z ^ (z >> 31)
            }
            Self::Listed(list) => u64::from(list.next().unwrap_or(0)),
        };
        (number % limit as u64) as usize
    }

    pub(super) fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    pub(super) fn pick<'a, T>(&mut self, of: &'a [T]) -> Option<&'a T> {
        (!of.is_empty()).then(|| &of[self.below(of.len())])
    }
}
