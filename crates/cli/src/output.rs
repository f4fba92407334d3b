//! Where facts go: standard output, as text for people or as one JSON value for programs.

use std::io::{self, IsTerminal, Write};

use serde::Serialize;

use crate::failure::Failure;
use crate::render::Style;

/// How facts are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// For people.
    Text,
    /// One JSON value.
    Json,
}

/// Standard output, and what it can show.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Output {
    format: Format,
    to_terminal: bool,
}

impl Output {
    pub(crate) fn new(format: Format) -> Self {
        Self { format, to_terminal: io::stdout().is_terminal() }
    }

    /// Prints `facts`: as JSON, or as `render` shows them.
    pub(crate) fn facts<T: Serialize + ?Sized>(
        &self,
        facts: &T,
        render: impl FnOnce(&T, Style) -> String,
    ) -> Result<(), Failure> {
        match self.format {
            Format::Text => self.text(&render(facts, self.style())),
            Format::Json => {
                let mut json = serde_json::to_string(facts).map_err(Failure::new)?;
                json.push('\n');
                self.text(&json)
            }
        }
    }

    /// Prints what only people need: nothing as JSON.
    pub(crate) fn remark(&self, render: impl FnOnce(Style) -> String) -> Result<(), Failure> {
        match self.format {
            Format::Text => self.text(&render(self.style())),
            Format::Json => Ok(()),
        }
    }

    /// Prints `text` as it is, and at once. Whoever reads may have gone (`| head`): then the
    /// command ends, and that is no failure.
    pub(crate) fn text(&self, text: &str) -> Result<(), Failure> {
        self.bytes(text.as_bytes())
    }

    /// The same of text that may be in any encoding.
    pub(crate) fn bytes(&self, bytes: &[u8]) -> Result<(), Failure> {
        let mut stdout = io::stdout().lock();
        match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
            Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Err(Failure::nobody_reads()),
            Err(e) => Err(Failure::new(format!("cannot write to standard output: {e}"))),
            Ok(()) => Ok(()),
        }
    }

    /// Whether facts are printed for people.
    pub(crate) fn is_text(&self) -> bool {
        self.format == Format::Text
    }

    /// Whether a person looks at the facts.
    pub(crate) fn is_terminal(&self) -> bool {
        self.format == Format::Text && self.to_terminal
    }

    pub(crate) fn style(&self) -> Style {
        Style::of(self.to_terminal)
    }

    pub(crate) fn style_of_errors(&self) -> Style {
        Style::of(io::stderr().is_terminal())
    }

    /// Whether a progress bar makes sense: a person looks, and nothing parses.
    pub(crate) fn shows_progress(&self) -> bool {
        self.format == Format::Text && io::stderr().is_terminal()
    }
}
