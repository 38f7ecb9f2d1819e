//! What a run leaves to chance, so that it can be had again: the moments of kills and what people do. When a
//! process gets its turn is not in our hands, so that the same seed makes it likely, not certain.

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
