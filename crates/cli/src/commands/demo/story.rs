//! The demo's story, step by step.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use pleach_daemon::control::Pick;

use super::masters::Master;
use super::sight::{until, until_equal};
use crate::commands::now_ms;
use crate::failure::Failure;
use crate::output::Output;
use crate::render;

const PAGES: usize = 300;

/// How long all of it may take; some seconds are usual.
const STORY_MAX: Duration = Duration::from_secs(90);

/// Tells it all.
pub(super) async fn tell(scratch: &Path, output: &Output) -> Result<(), Failure> {
    let say = Narrator { output, step: std::cell::Cell::new(0) };
    tokio::time::timeout(STORY_MAX, acts(scratch, &say)).await.unwrap_or_else(|_| {
        let (step, seconds) = (say.step.get(), STORY_MAX.as_secs());
        let message = format!("step {step} was still under way after {seconds} s");
        Err(Failure::new(message).next("repeat it with --log debug --keep"))
    })
}

async fn acts(scratch: &Path, say: &Narrator<'_>) -> Result<(), Failure> {
    let [paris, oslo, rome] = begin(scratch, say).await?;
    everyday(&paris, &oslo, &rome, say).await?;
    partition(&paris, &oslo, &rome, say).await?;
    settle(&paris, &oslo, &rome, say).await?;
    for master in [paris, oslo, rome] {
        master.stop().await;
    }
    farewell(say)
}

/// One directory full of files becomes three.
async fn begin(scratch: &Path, say: &Narrator<'_>) -> Result<[Master; 3], Failure> {
    let dir = |name: &str| scratch.join(name);
    for name in ["paris", "oslo", "rome"] {
        fs::create_dir(dir(name)).map_err(cannot("make", &dir(name)))?;
    }
    say.step("a directory full of files becomes the first master: pleach init paris")?;
    fill(&dir("paris"))?;
    let since = Instant::now();
    let paris = Master::found("paris", &dir("paris")).await?;
    say.took(&format!("{PAGES} pages, running"), since.elapsed())?;

    say.step("two empty directories join with a ticket each: pleach join oslo TICKET")?;
    let since = Instant::now();
    let oslo = paris.let_in("oslo", &dir("oslo")).await?;
    let rome = paris.let_in("rome", &dir("rome")).await?;
    let (elapsed, picture) = until_equal(&[&paris.dir, &oslo.dir, &rome.dir], since).await?;
    say.took(&format!("all three hold the same {} entries", picture.len()), elapsed)?;
    until_connected(&[&oslo, &rome], 2).await?;
    Ok([paris, oslo, rome])
}

/// What happens all day: a save, a rename, a removal.
async fn everyday(
    paris: &Master,
    oslo: &Master,
    rome: &Master,
    say: &Narrator<'_>,
) -> Result<(), Failure> {
    say.step("each master saves a page; the other two have it")?;
    for (page, writer, readers) in [
        ("pages/page-1.html", paris, [oslo, rome]),
        ("pages/page-2.html", oslo, [paris, rome]),
        ("pages/page-3.html", rome, [paris, oslo]),
    ] {
        let text = format!("<h1>saved in {}</h1>\n", writer.name);
        let since = Instant::now();
        write(&writer.dir.join(page), &text)?;
        for reader in readers {
            let page = reader.dir.join(page);
            until("the page arrived", since, || Ok(fs::read(&page)? == text.as_bytes())).await?;
        }
        let what = format!("{page} saved in {}, readable on both others", writer.name);
        say.took(&what, since.elapsed())?;
    }

    say.step("a directory is renamed: one rename on each, no file travels")?;
    let since = Instant::now();
    rename(&oslo.dir.join("pages"), &oslo.dir.join("archive"))?;
    for reader in [paris, rome] {
        let (old, new) = (reader.dir.join("pages"), reader.dir.join("archive/page-0.html"));
        until("the directory moved", since, || Ok(new.exists() && !old.exists())).await?;
    }
    say.took(&format!("mv pages archive ({PAGES} files) in oslo, seen on both"), since.elapsed())?;
    until_equal(&[&paris.dir, &oslo.dir, &rome.dir], Instant::now()).await?;
    Ok(())
}

/// Oslo is cut off; everyone goes on writing.
async fn partition(
    paris: &Master,
    oslo: &Master,
    rome: &Master,
    say: &Narrator<'_>,
) -> Result<(), Failure> {
    say.step("the line to oslo is cut; people go on working on both sides")?;
    oslo.set_isolated(true).await;
    until_connected(&[oslo], 0).await?;
    write(&paris.dir.join("index.html"), "<h1>written in paris</h1>\n")?;
    say.did("paris", "edits index.html")?;
    write(&oslo.dir.join("index.html"), "<h1>written in oslo, at the same time</h1>\n")?;
    say.did("oslo", "edits index.html too: this will be a conflict")?;
    write(&paris.dir.join("archive/page-7.html"), "a better page 7\n")?;
    say.did("paris", "edits archive/page-7.html")?;
    rename(&oslo.dir.join("archive"), &oslo.dir.join("old-pages"))?;
    say.did("oslo", "renames archive to old-pages")?;
    remove(&rome.dir.join("style.css"))?;
    say.did("rome", "removes style.css")?;
    write(&oslo.dir.join("style.css"), "body { color: darkgreen }\n")?;
    say.did("oslo", "edits style.css: an edit beats a removal that did not see it")?;
    let (elapsed, _) = until_equal(&[&paris.dir, &rome.dir], Instant::now()).await?;
    say.took("paris and rome agree without oslo", elapsed)?;

    say.step("the line heals")?;
    let since = Instant::now();
    oslo.set_isolated(false).await;
    let page = "old-pages/page-7.html";
    let (elapsed, _) = until_equal(&[&paris.dir, &oslo.dir, &rome.dir], since).await?;
    say.took("reconnected, merged, and equal on all three", elapsed)?;
    let seven =
        fs::read_to_string(rome.dir.join(page)).map_err(cannot("read", &rome.dir.join(page)))?;
    say.found(&format!("{page} is paris's edit at oslo's name: {:?}", seven.trim_end()))?;
    let style = rome.dir.join("style.css");
    let css = fs::read_to_string(&style).map_err(cannot("read", &style))?;
    say.found(&format!("style.css lives, as oslo wrote it: {:?}", css.trim_end()))
}

/// The conflict is looked at, and settled.
async fn settle(
    paris: &Master,
    oslo: &Master,
    rome: &Master,
    say: &Narrator<'_>,
) -> Result<(), Failure> {
    say.step("two conflicts are open, the same on all three: pleach conflicts show index.html")?;
    let mut conflicts = Vec::new();
    for master in [paris, oslo, rome] {
        let since = Instant::now();
        conflicts = loop {
            let open = master.conflicts().await?;
            if open.len() == 2 || since.elapsed() > Duration::from_secs(10) {
                break open;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        };
    }
    // By path: style.css is the other one.
    let [conflict, removed] = &*conflicts else {
        let paths: Vec<_> = conflicts.iter().map(|conflict| conflict.path.to_string()).collect();
        return Err(Failure::new(format!("expected two conflicts, found {paths:?}")));
    };
    say.text(|style| render::conflict(conflict, style, now_ms()))?;

    let losing = conflict.versions.iter().find(|version| !version.stands);
    let losing = losing.ok_or_else(|| Failure::new("the conflict has no other version"))?;
    let author = losing.master.as_ref().map_or("somebody", |master| &master.name);
    say.step(&format!(
        "rome keeps the other version: pleach conflicts resolve index.html --keep {}, and style.css as it is",
        losing.id
    ))?;
    let since = Instant::now();
    rome.resolve(conflict, Pick::Version(losing.id.clone())).await?;
    rome.resolve(removed, Pick::Both).await?;
    for master in [paris, oslo, rome] {
        while !master.conflicts().await?.is_empty() {
            if since.elapsed() > Duration::from_secs(30) {
                return Err(Failure::new(format!("the conflict stays open in {}", master.name)));
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    let (elapsed, picture) = until_equal(&[&paris.dir, &oslo.dir, &rome.dir], since).await?;
    say.took(&format!("closed everywhere; {author}'s version stands"), elapsed)?;
    say.found(&format!("{} entries, byte for byte the same on all three", picture.len()))
}

fn farewell(say: &Narrator<'_>) -> Result<(), Failure> {
    say.text(|style| {
        format!(
            "\n{}\n\n  pleach up /srv/www                      {}\n  \
             pleach up /srv/www --join TICKET        {}\n  \
             pleach status /srv/www                  {}\n  \
             pleach conflicts /srv/www               {}\n\n",
            style.bold("On your own directories:"),
            style.dim("# on the first server; it prints a ticket"),
            style.dim("# on each of the others"),
            style.dim("# who is connected, who is behind"),
            style.dim("# what needs a decision"),
        )
    })
}

async fn until_connected(masters: &[&Master], peers: usize) -> Result<(), Failure> {
    let since = Instant::now();
    for master in masters {
        while master.connected().await? != peers {
            if since.elapsed() > Duration::from_secs(30) {
                let message = format!("{} does not have {peers} connections", master.name);
                return Err(Failure::new(message));
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
    Ok(())
}

/// A small site.
fn fill(dir: &Path) -> Result<(), Failure> {
    fs::create_dir(dir.join("pages")).map_err(cannot("make", &dir.join("pages")))?;
    write(&dir.join("index.html"), "<h1>hello</h1>\n")?;
    write(&dir.join("style.css"), "body { color: black }\n")?;
    for n in 0..PAGES {
        let text = format!("page {n}\n").repeat(200);
        write(&dir.join(format!("pages/page-{n}.html")), &text)?;
    }
    let link = dir.join("latest");
    std::os::unix::fs::symlink("pages/page-0.html", &link).map_err(cannot("make", &link))
}

fn write(path: &Path, text: &str) -> Result<(), Failure> {
    fs::write(path, text).map_err(cannot("write", path))
}

fn rename(from: &Path, to: &Path) -> Result<(), Failure> {
    fs::rename(from, to).map_err(cannot("rename", from))
}

fn remove(path: &Path) -> Result<(), Failure> {
    fs::remove_file(path).map_err(cannot("remove", path))
}

fn cannot(act: &str, path: &Path) -> impl FnOnce(std::io::Error) -> Failure {
    let message = format!("cannot {act} {}", path.display());
    move |error| Failure::new(format!("{message}: {error}"))
}

/// Prints the story.
struct Narrator<'o> {
    output: &'o Output,
    step: std::cell::Cell<u32>,
}

impl Narrator<'_> {
    fn step(&self, title: &str) -> Result<(), Failure> {
        self.step.set(self.step.get() + 1);
        self.text(|style| format!("\n{}\n", style.bold(format!("{}. {title}", self.step.get()))))
    }

    fn took(&self, what: &str, time: Duration) -> Result<(), Failure> {
        self.text(|style| format!("   {:>9}  {what}\n", style.good(milliseconds(time))))
    }

    fn did(&self, who: &str, what: &str) -> Result<(), Failure> {
        self.text(|style| format!("   {:>9}  {what}\n", style.warn(format!("{who:>9}"))))
    }

    fn found(&self, what: &str) -> Result<(), Failure> {
        self.text(|_| format!("   {:>9}  {what}\n", ""))
    }

    fn text(&self, text: impl FnOnce(render::Style) -> String) -> Result<(), Failure> {
        self.output.text(&text(self.output.style()))
    }
}

/// `4.2 ms`, `1,312 ms`, right-aligned.
fn milliseconds(time: Duration) -> String {
    let shown = match time.as_secs_f64() * 1_000.0 {
        short @ ..100.0 => format!("{short:.1} ms"),
        long => format!("{long:.0} ms"),
    };
    format!("{shown:>9}")
}
