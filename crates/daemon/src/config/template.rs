//! The settings file of a new store: every key, its meaning and its default, as comments.

pub(super) const TEMPLATE: &str = r#"# pleach: the settings of this master alone. They are not replicated.
# Each key is shown with its default; remove the `#` before a key to change it, then restart the daemon.
# Durations have a unit (30s, 5m, 24h, 30d) or mean seconds.

# Where to listen, as multiaddresses. If nothing is said here and another program has port 4747, a free
# port is taken instead, the same one each time if it is free (`pleach status` shows which).
#listen = ["/ip4/0.0.0.0/tcp/4747", "/ip4/0.0.0.0/udp/4747/quic-v1"]

# Addresses to tell the other masters before those found out, at most 16: behind a translating router.
#advertise = []

# Whether to look for members on the local network by multicast DNS. Only a hint: nobody is let in by it.
#mdns = true

# Whether to set owner and group of what other masters wrote: true, false, or "auto": if the daemon may.
#replicate_owner = "auto"

# How often to look through the whole tree, for writes that raise no event (mmap, a lost event).
#rescan_interval = "1h"

# How long files that were replaced or deleted are kept below .pleach/versions (at least 1h), and how much of
# the file system they may hold together before the oldest go earlier. In its first hour none goes, for its age
# none while the clock has not gone evenly for half a day, and the versions of an open conflict stay until it is
# settled.
#versions_age = "30d"
#versions_share = "10%"
"#;
