//! What the machine under us has: room, memory, instructions.

use std::path::{Path, PathBuf};

#[cfg(target_arch = "x86_64")]
use janus_model::ops::Instructions;
use sysinfo::{MemoryRefreshKind, RefreshKind, System};

/// Bytes that may still be written below a folder, which need not exist yet.
#[cfg(unix)]
pub fn free_space(folder: &Path) -> Option<u64> {
    let found = rustix::fs::statvfs(&existing(folder)?).ok()?;
    found.f_bavail.checked_mul(found.f_frsize)
}

/// Not known here.
#[cfg(not(unix))]
pub fn free_space(_: &Path) -> Option<u64> {
    None
}

/// The nearest folder above that is there.
pub fn existing(folder: &Path) -> Option<PathBuf> {
    let whole = std::path::absolute(folder).ok()?;
    whole.ancestors().find(|path| path.is_dir()).map(Path::to_owned)
}

/// Memory of the processor, in bytes.
pub struct Memory {
    pub total: u64,
    /// Without pushing anything out.
    pub available: u64,
}

impl Memory {
    /// As the system, or the container we run in, tells it.
    pub fn now() -> Self {
        let memory = MemoryRefreshKind::nothing().with_ram();
        let system = System::new_with_specifics(RefreshKind::nothing().with_memory(memory));
        let (total, available) = (system.total_memory(), system.available_memory());
        match system.cgroup_limits() {
            Some(limit) if limit.total_memory > 0 && limit.total_memory < total => {
                Self { total: limit.total_memory, available: available.min(limit.free_memory) }
            }
            _ => Self { total, available },
        }
    }
}

/// Bytes of memory that this process occupies, where the system tells it in a file.
pub fn resident() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024)
}

/// Threads that the processor's work is spread over: `wish`, else as many as RAYON_NUM_THREADS says,
/// else as many as there are cores. Two threads of one core share its arithmetic, and wait for the
/// same memory.
pub fn threads(wish: Option<usize>) -> usize {
    let named = || std::env::var("RAYON_NUM_THREADS").ok().and_then(|n| n.parse().ok());
    let cores = || {
        // A container may be given fewer.
        let given = std::thread::available_parallelism().map_or(1, usize::from);
        System::physical_core_count().map_or(given, |cores| cores.min(given))
    };
    wish.or_else(named).filter(|n| *n > 0).unwrap_or_else(cores)
}

/// Starts so many threads, before there is work for them.
pub fn start_threads(wish: Option<usize>) {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads(wish));
    if pool.build_global().is_err() {
        // Not the first model of this process: the threads are there.
        tracing::debug!("threads were started before");
    }
}

/// Instructions that the products use where they are there, and whether they are.
#[cfg(target_arch = "x86_64")]
pub fn instructions() -> Vec<(&'static str, bool)> {
    let Instructions { avx2, avx512, bf16, vnni, matrices } = Instructions::get();
    vec![
        ("avx2", avx2),
        ("avx512", avx512),
        ("avx512bf16", bf16),
        ("avx512vnni", vnni),
        ("amx", matrices),
    ]
}

/// Instructions that the products use where they are there, and whether they are.
#[cfg(target_arch = "aarch64")]
pub fn instructions() -> Vec<(&'static str, bool)> {
    vec![
        ("neon", std::arch::is_aarch64_feature_detected!("neon")),
        ("fp16", std::arch::is_aarch64_feature_detected!("fp16")),
        ("bf16", std::arch::is_aarch64_feature_detected!("bf16")),
    ]
}

/// None that we know how to ask about.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
pub fn instructions() -> Vec<(&'static str, bool)> {
    Vec::new()
}

/// Whether files can be made in a folder, or in the one it would be made in.
pub fn is_writable(folder: &Path) -> bool {
    let Some(existing) = existing(folder) else { return false };
    let probe = existing.join(format!(".janus-probe-{}", std::process::id()));
    let made = std::fs::OpenOptions::new().write(true).create_new(true).open(&probe).is_ok();
    if made {
        // It is empty and ours; there is nothing to do about a failure.
        let _ = std::fs::remove_file(&probe);
    }
    made
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_to_be_made_has_the_room_of_the_one_above() {
        let folder = tempfile::tempdir().expect("a folder");
        let deep = folder.path().join("a/b/c");
        assert_eq!(existing(&deep), existing(folder.path()));
        assert!(is_writable(&deep) && !deep.exists());
        assert_eq!(free_space(&deep).is_some(), cfg!(unix));
        let memory = Memory::now();
        assert!(memory.total > 0 && memory.available <= memory.total);
    }
}
