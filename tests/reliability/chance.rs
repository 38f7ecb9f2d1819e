//! The random choices of a run: the moments of kills, and what people do. The same seed repeats these
//! choices. But the tests do not decide when each process runs, so the same result is likely, not certain.

use rand::SeedableRng;
use rand::rngs::StdRng;

pub struct Chance {
    pub seed: u64,
    pub random: StdRng,
}

impl Chance {
    pub fn new(seed: u64) -> Self {
        Self { seed, random: StdRng::seed_from_u64(seed) }
    }
}
