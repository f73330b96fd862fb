//! Which vector instructions kernels may use.

use std::sync::LazyLock;

/// Name of the variable that leaves some of them unused: `none`, `avx2`, `avx512` (without those for
/// bf16 and bytes) or `vectors` (without matrices). For comparisons, and where a processor has trouble
/// with one.
pub const VARIABLE: &str = "JANUS_INSTRUCTIONS";

/// What kernels are written for on x86, as far as the processor has it and [`VARIABLE`] allows it. Each
/// stands for all that kernels of its name use. Elsewhere all are false, and kernels ask the compiler.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Instructions {
    /// AVX2, FMA and F16C.
    pub avx2: bool,
    /// AVX-512 F, BW, VL and DQ, and [`Self::avx2`].
    pub avx512: bool,
    /// Products of pairs of bf16, and [`Self::avx512`].
    pub bf16: bool,
    /// Products of bytes by fours, and [`Self::avx512`].
    pub vnni: bool,
    /// Products of matrices of bf16 (AMX), which the system lets this program use, and [`Self::bf16`].
    pub matrices: bool,
}

impl Instructions {
    /// Asks once.
    #[inline]
    pub fn get() -> Self {
        static FOUND: LazyLock<Instructions> = LazyLock::new(|| {
            let most = std::env::var(VARIABLE).ok();
            Instructions::detected().limited(most.as_deref())
        });
        *FOUND
    }

    #[cfg(target_arch = "x86_64")]
    fn detected() -> Self {
        let avx2 = is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma")
            && is_x86_feature_detected!("f16c");
        let avx512 = avx2
            && is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512dq");
        let bf16 = avx512 && is_x86_feature_detected!("avx512bf16");
        let vnni = avx512 && is_x86_feature_detected!("avx512vnni");
        Self { avx2, avx512, bf16, vnni, matrices: bf16 && matrices() }
    }

    #[cfg(not(target_arch = "x86_64"))]
    fn detected() -> Self {
        Self::default()
    }

    fn limited(self, most: Option<&str>) -> Self {
        match most {
            None | Some("") => self,
            Some("vectors") => Self { matrices: false, ..self },
            Some("avx512") => Self { bf16: false, vnni: false, matrices: false, ..self },
            Some("avx2") => Self { avx2: self.avx2, ..Self::default() },
            Some("none") => Self::default(),
            Some(other) => {
                tracing::warn!(
                    "{VARIABLE} is none, avx2, avx512 or vectors, not {other:?}: all are used"
                );
                self
            }
        }
    }
}

/// Whether the processor has tiles and products of bf16 in them, and the system keeps them for this
/// program. Linux has to be asked first, once for all threads: they are 8 KiB more per thread.
#[cfg(target_arch = "x86_64")]
fn matrices() -> bool {
    use std::arch::x86_64::{__cpuid_count, __get_cpuid_max};

    const BF16: u32 = 1 << 22;
    const TILES: u32 = 1 << 24;
    if __get_cpuid_max(0).0 < 7 || __cpuid_count(7, 0).edx & (BF16 | TILES) != BF16 | TILES {
        return false;
    }
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        const ARCH_REQ_XCOMP_PERM: libc::c_int = 0x1023;
        const TILE_DATA: libc::c_ulong = 18;
        // SAFETY: asks for a permission; where it is not known or not given, nothing changes.
        unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, TILE_DATA) == 0 }
    }
    #[cfg(not(all(target_os = "linux", target_env = "gnu")))]
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fewer_are_used_on_request() {
        let all = Instructions { avx2: true, avx512: true, bf16: true, vnni: true, matrices: true };
        assert_eq!(all.limited(None), all);
        assert_eq!(all.limited(Some("sse9")), all);
        assert_eq!(all.limited(Some("vectors")), Instructions { matrices: false, ..all });
        let avx512 = Instructions { avx2: true, avx512: true, ..Instructions::default() };
        assert_eq!(all.limited(Some("avx512")), avx512);
        let avx2 = Instructions { avx2: true, ..Instructions::default() };
        assert_eq!(all.limited(Some("avx2")), avx2);
        assert_eq!(all.limited(Some("none")), Instructions::default());
        // What the processor lacks is not made up.
        let old = Instructions::default();
        assert_eq!([Some("avx2"), Some("vectors"), None].map(|most| old.limited(most)), [old; 3]);
    }
}
