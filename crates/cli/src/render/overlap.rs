//! Where versions clash: the lines of what they go back to that several of them changed, each to something else.
//!
//! As diff3(1) has it: changes that touch are one, and what all of them changed alike is no clash.

use std::ops::Range;

use similar::{DiffOp, DiffTag, TextDiff};

use super::diff::{DiffText, Side, compared};

/// Lines of the ancestor that at least two versions changed.
#[derive(Debug, PartialEq, Eq)]
struct Clash {
    base: Range<usize>,
    /// What each of the versions that changed it has there: its number, and its lines.
    versions: Vec<(usize, Range<usize>)>,
}

/// How many clashes there are, and what is shown of them. None where not all sides are text, or there are not
/// two versions.
pub(crate) fn overlaps(base: &Side, versions: &[&Side]) -> Option<(usize, DiffText)> {
    if versions.len() < 2 {
        return None;
    }
    let old = base.text()?;
    let texts: Vec<&[u8]> = versions.iter().map(|side| side.text()).collect::<Option<_>>()?;
    let diffs: Vec<_> = texts.iter().map(|new| compared(old, new)).collect();
    let found = clashes(&diffs);
    if found.is_empty() {
        let text =
            "no line is changed in two ways: a merge tool should put them together by itself\n";
        return Some((0, DiffText::Remark(text.to_owned())));
    }
    let mut text = Vec::new();
    for clash in &found {
        let Range { start, end } = clash.base;
        let what = match end - start {
            0 => format!("after line {start}"),
            1 => format!("line {end}"),
            _ => format!("lines {} to {end}", start + 1),
        };
        text.extend(format!("@@ {what}: changed in {} ways @@\n", clash.versions.len()).bytes());
        put(&mut text, b'-', &diffs[0].old_slices()[clash.base.clone()]);
        for (version, lines) in &clash.versions {
            text.extend(format!("+++ {}\n", versions[*version].label()).bytes());
            put(&mut text, b'+', &diffs[*version].new_slices()[lines.clone()]);
        }
    }
    Some((found.len(), DiffText::Unified(text)))
}

fn put(text: &mut Vec<u8>, sign: u8, lines: &[&[u8]]) {
    for line in lines {
        text.push(sign);
        text.extend_from_slice(line);
        if !line.ends_with(b"\n") {
            text.extend_from_slice(b"\n\\ No newline at end of file\n");
        }
    }
}

fn clashes<'a>(diffs: &[TextDiff<'a, 'a, 'a, [u8]>]) -> Vec<Clash> {
    let changes = diffs.iter().enumerate().flat_map(|(version, diff)| {
        let changed = diff.ops().iter().filter(|op| op.tag() != DiffTag::Equal);
        changed.map(move |op| (op.old_range(), version))
    });
    let mut changes: Vec<(Range<usize>, usize)> = changes.collect();
    changes.sort_by_key(|(range, version)| (range.start, range.end, *version));
    let mut groups: Vec<(Range<usize>, Vec<usize>)> = Vec::new();
    for (range, version) in changes {
        match groups.last_mut() {
            Some((whole, of)) if range.start <= whole.end => {
                whole.end = whole.end.max(range.end);
                of.push(version);
            }
            _ => groups.push((range, vec![version])),
        }
    }
    groups.into_iter().filter_map(|(base, of)| clash(base, of, diffs)).collect()
}

/// What several versions made of these lines of the ancestor, each in another way.
fn clash<'a>(
    base: Range<usize>,
    mut of: Vec<usize>,
    diffs: &[TextDiff<'a, 'a, 'a, [u8]>],
) -> Option<Clash> {
    of.sort_unstable();
    of.dedup();
    let mut versions: Vec<(usize, Range<usize>)> = Vec::new();
    for version in of {
        let lines = range_in(&base, diffs[version].ops());
        let has_same = |(other, there): &(usize, Range<usize>)| {
            diffs[*other].new_slices()[there.clone()] == diffs[version].new_slices()[lines.clone()]
        };
        if !versions.iter().any(has_same) {
            versions.push((version, lines));
        }
    }
    (versions.len() > 1).then_some(Clash { base, versions })
}

/// Where a version has these lines of the ancestor: a change of it that touches them is within them.
fn range_in(base: &Range<usize>, ops: &[DiffOp]) -> Range<usize> {
    let (mut start, mut end) = (None, 0);
    for op in ops {
        let (old, new) = (op.old_range(), op.new_range());
        if op.tag() == DiffTag::Equal {
            let shared = old.start.max(base.start)..old.end.min(base.end);
            if shared.start > shared.end {
                continue;
            }
            start.get_or_insert(new.start + (shared.start - old.start));
            end = new.start + (shared.end - old.start);
        } else if old.start >= base.start && old.end <= base.end {
            start.get_or_insert(new.start);
            end = new.end;
        }
    }
    start.unwrap_or(end)..end
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(base: &str, versions: &[&str]) -> (usize, String) {
        let side = |name: &str, text: &str| Side::of(name.to_owned(), text.as_bytes().to_vec());
        let sides: Vec<Side> =
            versions.iter().enumerate().map(|(n, text)| side(&format!("v{n}"), text)).collect();
        let (count, text) =
            overlaps(&side("base", base), &sides.iter().collect::<Vec<_>>()).expect("all are text");
        match text {
            DiffText::Remark(remark) => (count, remark),
            DiffText::Unified(text) => (count, String::from_utf8(text).unwrap()),
        }
    }

    #[test]
    fn lines_that_both_changed_are_shown_and_others_are_not() {
        let (count, text) =
            shown("1\n2\n3\n4\n5\n", &["1\nx\n3\n4\n5\n6\n", "0\n1\ny\nz\n3\n4\n5\n"]);
        assert_eq!(count, 1);
        assert_eq!(text, "@@ line 2: changed in 2 ways @@\n-2\n+++ v0\n+x\n+++ v1\n+y\n+z\n");
    }

    #[test]
    fn changes_that_touch_are_one_as_merge_tools_have_it() {
        let (count, text) = shown("1\n2\n3\n", &["1\nx\n3\n", "1\n2\n"]);
        assert_eq!(count, 1);
        assert_eq!(
            text,
            "@@ lines 2 to 3: changed in 2 ways @@\n-2\n-3\n+++ v0\n+x\n+3\n+++ v1\n+2\n"
        );
    }

    #[test]
    fn what_both_appended_differently_clashes_and_what_they_changed_alike_does_not() {
        let (count, text) = shown("1\n", &["0\n1\n2\n", "0\n1\n3"]);
        assert_eq!(count, 1);
        assert_eq!(
            text,
            "@@ after line 1: changed in 2 ways @@\n+++ v0\n+2\n+++ v1\n+3\n\\ No newline at end of file\n"
        );
    }

    #[test]
    fn one_that_has_deleted_what_others_changed_has_nothing_there() {
        let (_, text) = shown("1\n2\n3\n", &["1\n3\n", "1\nx\n3\n", "1\nx\n3\n"]);
        assert_eq!(text, "@@ line 2: changed in 2 ways @@\n-2\n+++ v0\n+++ v1\n+x\n");
    }

    #[test]
    fn changes_far_from_each_other_can_be_put_together() {
        let (count, text) = shown("1\n2\n3\n", &["x\n2\n3\n", "1\n2\ny\n"]);
        assert_eq!(count, 0);
        assert!(text.starts_with("no line is changed in two ways"), "{text}");
    }

    #[test]
    fn what_is_no_text_has_no_lines_to_clash() {
        let (text, binary) =
            (Side::of("a".into(), b"1".into()), Side::of("b".into(), b"\0".into()));
        assert_eq!(overlaps(&text, &[&text, &binary]).map(|(count, _)| count), None);
        assert_eq!(overlaps(&text, &[&text]).map(|(count, _)| count), None);
    }
}
