//! Refusals in the log: the first ones are told one by one, a flood of them is counted.

const PER_MINUTE_MAX: u32 = 20;
const MINUTE_MS: u64 = 60_000;

/// What has been told of late.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    minute_began_ms: u64,
    told: u32,
    suppressed: u64,
}

impl Refusals {
    /// Whether to tell one now; if so, how many were not told before it.
    pub(super) fn allow(&mut self, now_ms: u64) -> Option<u64> {
        if now_ms.saturating_sub(self.minute_began_ms) >= MINUTE_MS {
            (self.minute_began_ms, self.told) = (now_ms, 0);
        }
        if self.told >= PER_MINUTE_MAX {
            self.suppressed += 1;
            return None;
        }
        self.told += 1;
        Some(std::mem::take(&mut self.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flood_is_counted_and_told_a_minute_later() {
        let mut refusals = Refusals::default();
        let told = (0..100).filter(|_| refusals.allow(5).is_some()).count();
        assert_eq!(told, PER_MINUTE_MAX as usize);
        assert_eq!(refusals.allow(5 + MINUTE_MS), Some(80));
    }
}
