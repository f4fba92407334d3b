//! `pleach conflicts diff PATH`: what the versions changed, from what they go back to if that is to be had,
//! else from what stands.

use std::path::Path;

use pleach_core::values::{ConflictKind, VersionOf};
use pleach_core::vocabulary::TreePath;
use pleach_daemon::control::{
    Client, ClientError, ConflictReport, PathText, Refusal, VersionKind, VersionReport,
};
use serde::Serialize;

use super::content::{ANCESTOR, Content};
use super::{at, no_conflict};
use crate::asking::daemon;
use crate::failure::{Code, Failure};
use crate::output::Output;
use crate::render::{DiffText, Side};
use crate::{place, render};

/// Above this, files are not compared line by line.
const COMPARED_BYTES_MAX: u64 = 16 << 20;

/// What one version changed, for programs.
#[derive(Serialize)]
pub(super) struct DiffReport {
    path: PathText,
    /// The id of the version that it is compared with.
    from: String,
    /// The version's id.
    to: String,
    /// Whether it is what the versions go back to that this one is compared with.
    from_ancestor: bool,
    /// In how many places the versions changed the same lines of that, each to something else; none if not all
    /// of them are text.
    overlaps: Option<usize>,
    /// The unified diff; none if one of the two is no text.
    text: Option<String>,
}

pub(in crate::commands) fn diff(path: &Path, output: &Output) -> Result<Code, Failure> {
    let (root, tree_path) = place::path_in_store(path)?;
    let mut client = daemon(&root)?;
    let open = at(&mut client, &tree_path)?;
    if open.is_empty() {
        return Err(no_conflict(&tree_path));
    }
    let compared = compare(&mut client, &root, &tree_path, &open)?;
    if output.is_text() {
        let shown = compared
            .iter()
            .flat_map(|(_, text)| render::diff(text, output.style(), output.is_terminal()));
        output.bytes(&shown.collect::<Vec<u8>>())?;
    } else {
        let reports: Vec<_> = compared.into_iter().filter_map(|(report, _)| report).collect();
        output.facts(&*reports, |_, _| String::new())?;
    }
    Ok(Code::Done)
}

/// What the versions of these conflicts at `path` changed, and what is to be said of those that have no lines.
pub(super) fn compare(
    client: &mut Client,
    root: &Path,
    path: &TreePath,
    open: &[ConflictReport],
) -> Result<Vec<(Option<DiffReport>, DiffText)>, Failure> {
    let mut comparing = Comparing { client, root, path };
    let mut compared = Vec::new();
    for conflict in open {
        let remark = || (None, DiffText::Remark(render::no_diff(conflict)));
        let Parts { base, versions, lost } = comparing.parts(conflict)?;
        compared.extend(lost.map(|lost| (None, DiffText::Remark(lost))));
        let Some(base) = base.filter(|_| !versions.is_empty()) else {
            compared.push(remark());
            continue;
        };
        let sides: Vec<&Side> = versions.iter().map(|version| &version.0).collect();
        let overlaps = match base.2 {
            true => render::overlaps(&base.0, &sides),
            false => None,
        };
        for version in &versions {
            let text = render::unified(&base.0, &version.0);
            let report = DiffReport {
                path: PathText(path.clone()),
                from: base.1.clone(),
                to: version.1.clone(),
                from_ancestor: base.2,
                overlaps: overlaps.as_ref().map(|(count, _)| *count),
                text: text.text().map(|text| String::from_utf8_lossy(text).into_owned()),
            };
            compared.push((Some(report), text));
        }
        compared.extend(overlaps.map(|(_, text)| (None, text)));
        if conflict.kind == ConflictKind::DeletedAndEdited {
            compared.push(remark());
        }
    }
    Ok(compared)
}

/// One side, the id of its version, and whether it is the ancestor.
type Part = (Side, String, bool);

/// What is compared with what: a base, and the versions; what is to be said of the lack of an ancestor.
struct Parts {
    base: Option<Part>,
    versions: Vec<Part>,
    lost: Option<String>,
}

struct Comparing<'a> {
    client: &'a mut Client,
    root: &'a Path,
    path: &'a TreePath,
}

impl Comparing<'_> {
    fn parts(&mut self, conflict: &ConflictReport) -> Result<Parts, Failure> {
        let has_bytes = |version: &&VersionReport| {
            version.of == VersionOf::Content && version.what != VersionKind::Directory
        };
        let mut versions = Vec::new();
        for version in conflict.versions.iter().filter(has_bytes) {
            let side = self.sought(version, &version.id)?.map_err(ClientError::Refused)?;
            versions.push((side, version.id.clone(), false));
        }
        let Some(ancestor) = &conflict.ancestor else {
            let base = (versions.len() > 1).then(|| versions.remove(0));
            return Ok(Parts { base, versions, lost: None });
        };
        if let Ok(side) = self.sought(ancestor, ANCESTOR)? {
            let base = Some((side, ancestor.id.clone(), true));
            return Ok(Parts { base, versions, lost: None });
        }
        let lost = render::lost_ancestor(ancestor, "compared with what stands");
        // What stands is compared with the others.
        let base = (versions.len() > 1).then(|| versions.remove(0));
        Ok(Parts { base, versions, lost: Some(lost) })
    }

    /// A version, with its bytes; a refusal if nobody has them who is connected.
    fn sought(
        &mut self,
        version: &VersionReport,
        name: &str,
    ) -> Result<Result<Side, Refusal>, Failure> {
        let label = render::side_label(version, name);
        if version.size.unwrap_or(0) > COMPARED_BYTES_MAX {
            return Ok(Ok(Side::large(label, version.size.unwrap_or(0))));
        }
        let mut content = match Content::sought(self.client, self.root, self.path, name)? {
            Ok(content) => content,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let mut bytes = Vec::new();
        content.copy_to(&mut bytes).map_err(|e| Failure::new(format!("{}: {e}", self.path)))?;
        Ok(Ok(Side::of(label, bytes)))
    }
}
