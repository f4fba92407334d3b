//! Settings of the store: what every master must hold alike, replicated like the tree.

use super::Engine;
use crate::vocabulary::Moment;

/// A setting that this version knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Setting {
    /// Its name.
    pub key: &'static str,
    /// What it may be; the first is what it is unless somebody sets it.
    pub values: &'static [&'static str],
    /// What it is about, for people.
    pub about: &'static str,
}

/// Whether mass deletion waits for a person.
pub(super) const MASS_DELETE_GUARD: Setting = Setting {
    key: "mass_delete_guard",
    values: &["true", "false"],
    about: "whether the removal of most of the tree in one go waits for `pleach guard`",
};

/// How conflicts are shown. The replica knows its key and its values, too.
const CONFLICTS: Setting = Setting {
    key: "conflicts",
    values: &["hidden", "siblings"],
    about: "whether versions that do not stand are files beside the path",
};

/// All settings that there are.
pub const SETTINGS: &[Setting] = &[CONFLICTS, MASS_DELETE_GUARD];

/// Why a setting can't be set.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SettingError {
    /// There is none of this name.
    #[error("there is no setting {0}: `pleach set` lists them all")]
    Unknown(String),
    /// It can't be this.
    #[error("{key} can't be {value}: it is one of {}", values.join(", "))]
    Value {
        /// Its name.
        key: &'static str,
        /// What it was to be.
        value: String,
        /// What it may be.
        values: &'static [&'static str],
    },
}

impl Engine {
    /// What a setting is.
    #[must_use]
    pub fn setting(&self, setting: Setting) -> String {
        let set = self.replica.setting(setting.key).and_then(|value| String::from_utf8(value).ok());
        // What another version may set it to, means nothing to this one.
        let known = set.filter(|value| setting.values.contains(&value.as_str()));
        known.unwrap_or_else(|| setting.values[0].to_owned())
    }

    /// Sets a setting, on all masters.
    ///
    /// # Errors
    /// If there is no such setting, or it can't be that.
    pub fn set(&mut self, now: Moment, key: &str, value: &str) -> Result<(), SettingError> {
        let setting = SETTINGS.iter().find(|setting| setting.key == key);
        let setting = setting.ok_or_else(|| SettingError::Unknown(key.to_owned()))?;
        if !setting.values.contains(&value) {
            let (key, values) = (setting.key, setting.values);
            return Err(SettingError::Value { key, value: value.to_owned(), values });
        }
        let local = self.replica.set_setting(key, value.as_bytes());
        self.publish(local, Vec::new());
        self.advance(now.monotonic_ms);
        self.seal();
        Ok(())
    }
}
