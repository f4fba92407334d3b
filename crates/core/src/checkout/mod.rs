//! Checkout: base and merged tree become ordered, guarded effects on the disk.
