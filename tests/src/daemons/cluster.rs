//! Several masters of one store on this machine.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use tempfile::TempDir;

use super::{Master, Tree, differences, probe_until, wait_until};

/// How long masters on one machine may take for what a test does to them: generous, for CI machines
/// that do other things too. A test that meets its condition earlier goes on at once.
const PATIENCE: Duration = Duration::from_secs(90);

/// Masters `a`, `b`, … of one store, all running, all connected.
#[derive(Debug)]
pub struct Cluster {
    // Before `scratch`, so that daemons end before their directories go.
    /// The masters, in the order in which they joined.
    pub masters: Vec<Master>,
    /// Where their directories and logs are.
    pub scratch: TempDir,
}

impl Cluster {
    /// `count` masters of a store that is empty.
    #[must_use]
    pub fn of(count: usize) -> Self {
        Self::holding(count, |_, _| {})
    }

    /// `count` masters whose directories `fill` fills before they join, by number.
    ///
    /// # Panics
    ///
    /// When they don't come to be connected.
    #[must_use]
    pub fn holding(count: usize, fill: impl Fn(usize, &Master)) -> Self {
        let names: Vec<String> = ('a'..='z').take(count).map(String::from).collect();
        Self::named(&names, fill)
    }

    /// Masters that are called so, and whose directories `fill` fills before they join, by number.
    ///
    /// # Panics
    ///
    /// When they don't come to be connected.
    #[must_use]
    pub fn named(names: &[impl AsRef<str>], fill: impl Fn(usize, &Master)) -> Self {
        let scratch = tempfile::Builder::new()
            .prefix("pleach-test-")
            .tempdir()
            .expect("a scratch directory can be made");
        let mut cluster = Self { masters: Vec::new(), scratch };
        for (number, name) in names.iter().enumerate() {
            let mut master = Master::new(cluster.scratch.path(), name.as_ref());
            fill(number, &master);
            match cluster.masters.first() {
                None => master.init(),
                Some(first) => master.join(first),
            }
            master.start();
            cluster.masters.push(master);
        }
        cluster.await_connected();
        cluster
    }

    /// Waits until every running master is connected to every other.
    ///
    /// # Panics
    ///
    /// When they don't come to be.
    pub fn await_connected(&self) {
        let running: Vec<&Master> = self.masters.iter().filter(|master| master.runs()).collect();
        for master in &running {
            let what = format!("{} is connected to all others", master.name());
            wait_until(&what, PATIENCE, || {
                let status = master.status();
                let connected =
                    status.list("/masters").iter().filter(|other| other["connected"] == true);
                let count = connected.count();
                if count == running.len() { Ok(()) } else { Err(format!("{:#}", status.0)) }
            });
        }
    }

    /// Waits until all masters have the same tree, as `check` wants it, and nothing is in hand.
    ///
    /// # Panics
    ///
    /// When they don't come to it; the message says where they differ or what `check` said last.
    pub fn settle_as(&self, what: &str, check: impl Fn(&Tree) -> Result<(), String>) -> Tree {
        wait_until(what, PATIENCE, || {
            let first = self.masters[0].tree();
            for other in &self.masters[1..] {
                let tree = other.tree();
                if tree != first {
                    let differences = differences(&first, &tree);
                    return Err(format!("a and {} differ:\n{differences}", other.name()));
                }
            }
            check(&first)?;
            self.masters.iter().try_for_each(at_rest)?;
            Ok(first)
        })
    }

    /// Waits until all masters have the tree that master number `number` has now.
    ///
    /// # Panics
    ///
    /// When they don't come to it.
    pub fn settle_to(&self, number: usize, what: &str) -> Tree {
        let wanted = self.masters[number].tree();
        self.settle_as(
            what,
            |tree| {
                if *tree == wanted { Ok(()) } else { Err(differences(&wanted, tree)) }
            },
        )
    }

    /// Waits until all masters have the same tree, whichever it is, after each has taken up what was
    /// done to it before.
    ///
    /// # Panics
    ///
    /// When they don't come to it.
    pub fn settle(&self, what: &str) -> Tree {
        for master in &self.masters {
            self.flush(master);
        }
        self.settle_as(what, |_| Ok(()))
    }

    /// Waits until `master` has taken up what was done to it, and has told those it is connected to.
    ///
    /// # Panics
    ///
    /// When it doesn't.
    pub fn flush(&self, master: &Master) {
        let timeout = PATIENCE.as_secs().to_string();
        let _ = master.pleach(["wait", ".", "--timeout", &timeout]).ok();
    }

    /// Cuts a master off from all others, or lets it meet them again.
    ///
    /// # Panics
    ///
    /// When the daemon doesn't do it.
    pub fn isolate(&self, number: usize, isolated: bool) {
        let master = &self.masters[number];
        let request = format!(r#"{{"version":1,"request":"isolate","isolated":{isolated}}}"#);
        let answer = control(master, &request);
        assert!(answer.contains("done"), "{answer}");
        if isolated {
            wait_until(&format!("{} is alone", master.name()), PATIENCE, || {
                let status = master.status();
                let others = status.list("/masters").iter().filter(|other| other["this"] != true);
                if others.clone().any(|other| other["connected"] == true) {
                    return Err(format!("{:#}", status.0));
                }
                Ok(())
            });
        }
    }

    /// Cuts all masters off from each other.
    pub fn cut_all(&self) {
        (0..self.masters.len()).for_each(|number| self.isolate(number, true));
    }

    /// Lets all masters meet again, and waits until they have.
    pub fn heal_all(&self) {
        (0..self.masters.len()).for_each(|number| self.isolate(number, false));
        self.await_connected();
    }
}

/// Whether a daemon has nothing in hand, and lacks nothing that it knows of.
fn at_rest(master: &Master) -> Result<(), String> {
    if !master.runs() {
        return Ok(());
    }
    let status = master.status();
    let work = &status.0["work"];
    let idle = work["scanning"] == false
        && work["effects_pending"] == 0
        && work["fetching"]["contents"] == 0;
    let level =
        status.list("/masters").iter().filter(|other| other["connected"] == true).all(|other| {
            [&other["behind_changes"], &other["ahead_changes"]]
                .iter()
                .all(|count| count.is_null() || **count == 0)
        });
    if idle && level {
        Ok(())
    } else {
        Err(format!("{} is at work: {:#}", master.name(), status.0))
    }
}

/// Sends one line to a daemon's control socket and takes the line it answers.
fn control(master: &Master, request: &str) -> String {
    let answer = probe_until(Duration::from_secs(10), || {
        let mut stream = UnixStream::connect(master.path(".pleach/socket"))
            .map_err(|error| format!("no control socket: {error}"))?;
        stream
            .set_read_timeout(Some(Duration::from_secs(10)))
            .and_then(|()| writeln!(stream, "{request}"))
            .map_err(|error| error.to_string())?;
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).map_err(|error| error.to_string())?;
        Ok(line)
    });
    answer.unwrap_or_else(|error| panic!("{request}: {error}"))
}
