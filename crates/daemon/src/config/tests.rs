use super::*;

fn parse(text: &str) -> Result<Config, ConfigError> {
    Config::parse(Path::new("config.toml"), text)
}

fn refusal(text: &str) -> String {
    parse(text).unwrap_err().to_string()
}

#[test]
fn template_without_its_comment_signs_is_the_default() {
    assert_eq!(parse(Config::template()).unwrap(), Config::default());
    let uncommented: String = Config::template()
        .lines()
        .map(|line| match line.strip_prefix('#') {
            Some(key) if key.starts_with(|c: char| c.is_ascii_lowercase() || c == '[') => key,
            _ => line,
        })
        .flat_map(|line| [line, "\n"])
        .collect();
    let parsed = parse(&uncommented).unwrap();
    assert_eq!(parsed.listen.addresses(), Listen::Default.addresses());
    assert_eq!(Config { listen: Listen::Default, ..parsed }, Config::default());
    // Every key is there: one that is missing from the template would be missed by people too.
    for key in refusal("nonsense = 1").split('`').skip(3).step_by(2) {
        assert!(uncommented.contains(key), "{key}");
    }
}

#[test]
fn unknown_keys_are_named_with_file_line_and_what_is_allowed() {
    assert_eq!(
        refusal("mdns = true\n\nrescan_intervall = \"1h\"\n"),
        "config.toml, line 3: unknown key `rescan_intervall`, allowed are `listen`, `advertise`, \
         `mdns`, `replicate_owner`, `rescan_interval`, `versions_age`, `versions_share`"
    );
}

#[test]
fn wrong_values_are_named_with_file_line_key_and_what_is_allowed() {
    for (text, line, part) in [
        ("mdns = \"yes\"", 1, "wrong value for `mdns`: invalid type: string \"yes\""),
        ("\nrescan_interval = \"1 week\"", 2, "\"1 week\" is no duration"),
        ("rescan_interval = 2", 1, "`rescan_interval`: allowed is at least 10s"),
        ("versions_age = \"5m\"", 1, "`versions_age`: allowed is at least 1h"),
        ("versions_share = \"101%\"", 1, "expected \"0%\" to \"100%\", found \"101%\""),
        ("versions_share = 10", 1, "wrong value for `versions_share`"),
        ("replicate_owner = \"maybe\"", 1, "expected \"auto\", true or false, found \"maybe\""),
        ("replicate_owner = 3", 1, "expected \"auto\", true or false"),
        (
            "listen = [\"0.0.0.0:4747\"]",
            1,
            "wrong value for `listen`: no multiaddress, which looks like",
        ),
        ("mdns =", 1, ""),
        ("mdns = true\nmdns = true", 2, "`mdns` is there twice"),
    ] {
        let message = refusal(text);
        assert!(message.starts_with(&format!("config.toml, line {line}: ")), "{text:?}: {message}");
        assert!(message.contains(part), "{text:?}: {message}");
    }
}

#[test]
fn values_are_taken_in_each_way_they_may_be_written() {
    let config =
        parse("replicate_owner = false\nrescan_interval = 90\nlisten = [\"/ip4/127.0.0.1/tcp/0\"]")
            .unwrap();
    assert_eq!(config.replicate_owner, ReplicateOwner::Never);
    assert_eq!(config.rescan_interval, Duration::from_secs(90));
    assert_eq!(config.listen.addresses().len(), 1);
    assert_eq!(config.listen.fallback(), None);
}

#[test]
fn missing_file_means_the_defaults() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(Config::load(dir.path()).unwrap(), Config::default());
}
