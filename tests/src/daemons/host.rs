//! Hosts of their own on this machine: network namespaces, joined by cables that can be pulled.

use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

/// A network namespace; removed when dropped.
#[derive(Debug)]
pub struct Host {
    name: String,
}

/// A cable between two hosts; it goes with them.
#[derive(Debug)]
pub struct Cable {
    host: String,
    near: String,
    other: String,
    far: String,
}

impl Host {
    /// Makes a host that has nothing but its loopback. Errs with the reason, if that can't be done here.
    pub fn new() -> Result<Self, String> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("pleach-{}-{number}", std::process::id());
        ip(&["netns", "add", &name])?;
        let host = Self { name };
        host.ip(&["link", "set", "lo", "up"])?;
        Ok(host)
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Lays a cable to `other`; the ends get these addresses, with their prefix's length.
    ///
    /// # Errors
    /// If it can't be done.
    pub fn connect(&self, address: &str, other: &Self, others: &str) -> Result<Cable, String> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let (near, far) = (format!("near{number}"), format!("far{number}"));
        let here = ["link", "add", &near, "netns", &self.name, "type", "veth", "peer", "name"];
        ip(&[&here[..], &[&far, "netns", &other.name]].concat())?;
        for (host, device, address) in [(self, &near, address), (other, &far, others)] {
            host.ip(&["address", "add", address, "dev", device])?;
            host.ip(&["link", "set", device, "up"])?;
        }
        let (host, other) = (self.name.clone(), other.name.clone());
        Ok(Cable { host, near, other, far })
    }

    /// Runs `ip` in it.
    ///
    /// # Errors
    /// If it fails.
    pub fn ip(&self, arguments: &[&str]) -> Result<(), String> {
        ip(&[&["-n", self.name.as_str()], arguments].concat())
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = ip(&["netns", "del", &self.name]);
    }
}

impl Cable {
    /// The names of its ends, each on its own host.
    #[must_use]
    pub fn devices(&self) -> (&str, &str) {
        (&self.near, &self.far)
    }

    /// Pulls it: nobody is told, packets just don't arrive any more.
    ///
    /// # Errors
    /// If it can't be done.
    pub fn pull(&self) -> Result<(), String> {
        ip(&["-n", &self.host, "link", "set", &self.near, "down"])
    }

    /// Plugs it in again.
    ///
    /// # Errors
    /// If it can't be done.
    pub fn plug(&self) -> Result<(), String> {
        ip(&["-n", &self.host, "link", "set", &self.near, "up"])
    }

    /// Lets it lose so many of a hundred packets, either way, from now on.
    ///
    /// # Errors
    /// If it can't be done: that takes nft(8).
    pub fn lose(&self, percent: u32) -> Result<(), String> {
        for (host, device) in [(&self.host, &self.near), (&self.other, &self.far)] {
            // Where they come in: a sender would be told of what is dropped on its way out.
            let chain = "{ type filter hook input priority 0; }";
            let loses = format!("iifname {device} numgen random mod 100 < {percent} drop");
            let lines = ["add table inet loss", &format!("add chain inet loss in {chain}")];
            for line in lines.into_iter().chain([format!("add rule inet loss in {loses}").as_str()])
            {
                ip(&["netns", "exec", host, "nft", line])?;
            }
        }
        Ok(())
    }
}

fn ip(arguments: &[&str]) -> Result<(), String> {
    let ran = Command::new("ip").args(arguments).stdin(Stdio::null()).output();
    let ran = ran.map_err(|error| format!("ip(8): {error}"))?;
    match ran.status.success() {
        true => Ok(()),
        false => {
            let why = String::from_utf8_lossy(&ran.stderr).trim().to_owned();
            Err(format!("ip {}: {why}", arguments.join(" ")))
        }
    }
}
