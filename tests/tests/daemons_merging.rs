//! What a person has made of the versions of a file, by hand or with a tool, is the resolution.
#![allow(clippy::unwrap_used, reason = "a test ends where its scaffolding fails")]

use std::fs;
use std::time::Duration;

use pleach_tests::daemons::{
    KINDS, await_open, in_conflict, resolve, shell, shown, versions, wait_until, write,
};

#[test]
fn merge_tool_has_its_files_and_what_it_makes_is_the_resolution() {
    let cluster = in_conflict(&KINDS[..1]);
    let [a, _, c] = &cluster.masters[..] else { panic!("three masters") };
    let open = c.conflicts();
    let merge = |tool: &str| c.pleach(["conflicts", "diff", "edited/f", "--tool", tool]);
    let failed = merge("echo half > \"$MERGED\"; exit 3");
    assert_eq!(failed.code, 1, "{failed}");
    assert!(
        failed.stderr.contains("exit status: 3") && failed.stderr.contains("_MERGED"),
        "{failed}"
    );
    let unchanged = merge(": \"$MERGED\"");
    assert_eq!(unchanged.code, 1, "{unchanged}");
    assert!(unchanged.stderr.contains("left MERGED as it was"), "{unchanged}");
    assert_eq!(merge("no-such-tool").code, 2);
    let file = c.path("edited/f");
    let late = format!("echo merged > \"$MERGED\"; echo meanwhile >> '{}'", file.display());
    let late = merge(&late);
    assert_eq!(late.code, 1, "{late}");
    assert!(late.stderr.contains("edited/f: ") && late.stderr.contains("meanwhile"), "{late}");
    assert!(fs::read_to_string(&file).unwrap().ends_with("meanwhile\n"), "nothing is overwritten");
    let kept = late.stderr.split("what was merged is in ").nth(1).unwrap().trim();
    assert_eq!(fs::read_to_string(kept.lines().next().unwrap()).unwrap(), "merged\n");
    wait_until("c knows of its own edit", Duration::from_secs(60), || {
        let now = c.conflicts();
        if now == open { Err(format!("{now:#?}")) } else { Ok(()) }
    });
    let _ = merge("cat \"$BASE\" \"$LOCAL\" \"$REMOTE\" > \"$MERGED\"").ok();
    await_open(&cluster, 0);
    cluster.settle("what was merged is on all");
    let merged = fs::read_to_string(a.path("edited/f")).unwrap();
    let mut lines: Vec<_> = merged.lines().collect();
    assert_eq!(lines.remove(0), "0", "{merged}");
    lines.sort_unstable();
    assert_eq!(lines, ["from a", "meanwhile", "of b"]);
    assert_eq!(a.tree().entries[std::path::Path::new("edited/f")].mode, 0o640);
}
