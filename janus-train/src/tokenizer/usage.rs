//! Which codes are used: a codebook in which most rows are never chosen is a small one.

/// So many codes of the past are looked at, as LlamaGen does.
const REMEMBERED: u64 = 65_536;

/// When each code was last chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Number of the step, counted from 1; 0 for never.
    last: Vec<u64>,
}

impl Usage {
    /// Of a codebook of so many rows, none used so far.
    pub fn new(codes: usize) -> Self {
        Self { last: vec![0; codes] }
    }

    /// Rows of the codebook.
    pub fn codes(&self) -> usize {
        self.last.len()
    }

    /// Takes down the codes of a step, counted from 0.
    pub fn see(&mut self, step: u64, codes: impl Iterator<Item = i64>) {
        for code in codes {
            if let Some(last) = usize::try_from(code).ok().and_then(|code| self.last.get_mut(code))
            {
                *last = step + 1;
            }
        }
    }

    /// Shares of the codes that the step used, and that none of the last steps did, which together
    /// chose 65,536 codes at least, `each` in every step.
    pub fn shares(&self, step: u64, each: u64) -> (f64, f64) {
        let window = REMEMBERED.div_ceil(each.max(1));
        let share = |wanted: &dyn Fn(u64) -> bool| {
            self.last.iter().filter(|last| wanted(**last)).count() as f64 / self.last.len() as f64
        };
        let used = share(&|last| last == step + 1);
        let dead = share(&|last| last == 0 || last + window <= step + 1);
        (used, dead)
    }

    /// The codes that none of the last `steps` steps chose, this one included.
    pub fn idle(&self, step: u64, steps: u64) -> Vec<usize> {
        let idle = |last: &u64| last + steps <= step + 1;
        (0..self.last.len()).filter(|code| idle(&self.last[*code])).collect()
    }

    /// As a file.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.last.iter().flat_map(|last| last.to_le_bytes()).collect()
    }

    /// Of a file; `None` where it is of another codebook.
    pub fn from_bytes(bytes: &[u8], codes: usize) -> Option<Self> {
        let (all, rest) = bytes.as_chunks::<8>();
        let fits = all.len() == codes && rest.is_empty();
        fits.then(|| Self { last: all.iter().map(|bytes| u64::from_le_bytes(*bytes)).collect() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_codes_are_those_of_no_recent_step() {
        let mut usage = Usage::new(3);
        assert!(usage.idle(0, 2).is_empty());
        usage.see(0, [1].into_iter());
        usage.see(1, [2].into_iter());
        assert_eq!(usage.idle(1, 2), [0]);
        assert_eq!(usage.idle(2, 2), [0, 1]);
    }

    #[test]
    fn codes_that_nobody_chose_for_long_are_dead() {
        let mut usage = Usage::new(4);
        // Two steps make the window.
        let each = REMEMBERED / 2;
        usage.see(0, [0, 1, 1].into_iter());
        assert_eq!(usage.shares(0, each), (0.5, 0.5));
        usage.see(1, [2].into_iter());
        assert_eq!(usage.shares(1, each), (0.25, 0.25));
        usage.see(2, [2].into_iter());
        assert_eq!(usage.shares(2, each), (0.25, 0.75));
        // Codes that cannot be are nobody's.
        usage.see(2, [-1, 4].into_iter());
        assert_eq!(usage.shares(2, each), (0.25, 0.75));
        let bytes = usage.to_bytes();
        assert_eq!(Usage::from_bytes(&bytes, 4), Some(usage));
        assert_eq!(Usage::from_bytes(&bytes, 5), None);
        assert_eq!(Usage::from_bytes(&bytes[1..], 4), None);
    }
}
