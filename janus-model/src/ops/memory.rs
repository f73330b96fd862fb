//! What the C library does with memory that was used.

/// Has the C library keep large pieces of memory that were given back, for whoever asks next; for
/// programs to call once, when they start.
///
/// Results of an operation come and go, and those of the image decoder have 75 MB. glibc gives a
/// piece above 32 MB back to the system at once, and takes another one, which the system clears
/// page by page: a tenth to a quarter of the decoder's time. Threads have a heap of their own, too, for
/// pieces of up to 64 MB; so there is one for all. Elsewhere nothing happens.
pub fn keep_freed_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        let wishes = [
            (libc::M_ARENA_MAX, 1),
            (libc::M_MMAP_THRESHOLD, 1 << 30),
            (libc::M_TRIM_THRESHOLD, libc::c_int::MAX),
        ];
        for (what, value) in wishes {
            // SAFETY: a setting of the allocator. Where it is not known, it has no effect.
            unsafe { libc::mallopt(what, value) };
        }
    }
}
