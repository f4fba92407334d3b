//! Colours, where they help and can be shown.

/// Whether text may have colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Style {
    /// A person looks at a terminal.
    Colours,
    /// A file, a pipe, or a person who asked for none.
    Plain,
}

impl Style {
    /// Colours on a terminal, unless `NO_COLOR` is set (<https://no-color.org>).
    pub(crate) fn of(terminal: bool) -> Self {
        let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        if terminal && !refused { Self::Colours } else { Self::Plain }
    }

    pub(crate) fn bold(self, text: impl ToString) -> String {
        self.paint("1", text)
    }

    pub(crate) fn dim(self, text: impl ToString) -> String {
        self.paint("2", text)
    }

    pub(crate) fn good(self, text: impl ToString) -> String {
        self.paint("32", text)
    }

    pub(crate) fn warn(self, text: impl ToString) -> String {
        self.paint("33", text)
    }

    pub(crate) fn bad(self, text: impl ToString) -> String {
        self.paint("31", text)
    }

    pub(crate) fn alarm(self, text: impl ToString) -> String {
        self.paint("1;31", text)
    }

    fn paint(self, code: &str, text: impl ToString) -> String {
        match self {
            Self::Colours => format!("\x1b[{code}m{}\x1b[0m", text.to_string()),
            Self::Plain => text.to_string(),
        }
    }
}
