//! What the operating system knows of this process and its machine.

/// Memory of this process, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// The most that was resident at any moment, pages of mapped files included.
    pub peak: u64,
    /// What is resident now and belongs to this process alone.
    pub private: u64,
}

/// Memory of this process, where the system tells (Linux).
pub fn memory() -> Option<Memory> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let figure = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name))?;
        line.split_whitespace().nth(1)?.parse::<u64>().ok().map(|kib| kib << 10)
    };
    Some(Memory { peak: figure("VmHWM:")?, private: figure("RssAnon:")? })
}

/// Lets the peak start again from what is resident now, where the system can (Linux).
pub fn forget_peak() {
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}

/// Threads that the processor's work is spread over.
pub fn threads() -> usize {
    let wanted = std::env::var("RAYON_NUM_THREADS").ok().and_then(|n| n.parse().ok());
    let all = || std::thread::available_parallelism().map_or(1, usize::from);
    wanted.filter(|n| *n > 0).unwrap_or_else(all)
}

/// Memory of the machine that programs can still get, in bytes.
pub fn available() -> u64 {
    let mut system = sysinfo::System::new();
    system.refresh_memory();
    system.available_memory()
}
