//! The trace: what happened in a world, as one hash, and as lines when somebody wants to read them.

/// What of the trace is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lines {
    /// Each line is printed to standard error as it comes, and the hash is kept.
    Print,
    /// Only the hash is kept.
    Hash,
    /// Events are counted: making what the hash is of costs a fifth of a history.
    Count,
}

/// What happened so far.
#[derive(Debug)]
pub struct Trace {
    lines: Lines,
    hasher: blake3::Hasher,
    events: u64,
}

impl Trace {
    /// Nothing has happened.
    #[must_use]
    pub fn new(lines: Lines) -> Self {
        Self { lines, hasher: blake3::Hasher::new(), events: 0 }
    }

    /// Whether lines are printed.
    #[must_use]
    pub fn is_printed(&self) -> bool {
        self.lines == Lines::Print
    }

    /// Whether nobody wants more than the number of events.
    #[must_use]
    pub fn is_counted(&self) -> bool {
        self.lines == Lines::Count
    }

    /// Notes something. The numbers are what the hash is of; the text is made only to be printed.
    pub fn note(&mut self, now_us: u64, numbers: &[u64], text: impl FnOnce() -> String) {
        self.events += 1;
        if self.is_counted() {
            return;
        }
        self.hasher.update(&now_us.to_le_bytes());
        for number in numbers {
            self.hasher.update(&number.to_le_bytes());
        }
        if self.is_printed() {
            eprintln!("{:>12} us  {}", now_us, text());
        }
    }

    /// How many things happened.
    #[must_use]
    pub fn events(&self) -> u64 {
        self.events
    }

    /// The hash of all that happened; of nothing if events are only counted.
    #[must_use]
    pub fn hash(&self) -> String {
        self.hasher.finalize().to_hex()[..16].to_owned()
    }
}
