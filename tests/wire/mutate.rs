//! Mutations: inputs that are nearly right, from seeds and a number.
//!
//! In: seeds, `Rng`. Out: inputs, none longer than `BYTES_MAX`. Must not: read a clock.

use tandem::time::Rng;

const BYTES_MAX: usize = 2048;

pub struct Mutator {
    rng: Rng,
    seeds: Vec<Vec<u8>>,
}

impl Mutator {
    pub fn new(seed: u64, seeds: Vec<Vec<u8>>) -> Self {
        Self { rng: Rng::new(seed), seeds }
    }

    /// Every eighth input is noise, the others are seeds with up to six things changed.
    pub fn next(&mut self) -> Vec<u8> {
        if self.below(8) == 0 {
            let length = self.below(160);
            return self.noise(length);
        }
        let mut input = self.seed();
        for _ in 0..1 + self.below(6) {
            self.change(&mut input);
        }
        input.truncate(BYTES_MAX);
        input
    }

    fn change(&mut self, input: &mut Vec<u8>) {
        let place = self.below(input.len() + 1);
        let count = self.below(9).min(input.len() - place);
        match self.below(8) {
            0 | 1 => {
                let bit = self.below(8);
                input.iter_mut().skip(place).take(1).for_each(|byte| *byte ^= 1 << bit);
            }
            2 => input.truncate(place),
            3 => drop(input.drain(place..place + count)),
            4 => {
                let noise = self.noise(count + 1);
                input.splice(place..place, noise);
            }
            5 => {
                let other = self.seed();
                let from = self.below(other.len() + 1);
                input.truncate(place);
                input.extend(&other[from..]);
            }
            6 => self.change_length(input, place),
            _ => {
                let noise = self.noise(count);
                input.splice(place..place + count, noise);
            }
        }
    }

    /// A number of one, two or four bytes, of either order, becomes a likely length or an edge.
    fn change_length(&mut self, input: &mut [u8], place: usize) {
        let rest = u32::try_from(input.len() - place).unwrap_or(0);
        let choices =
            [0, 1, rest, rest.wrapping_sub(1), rest + 1, 0x7fff_ffff, 0x8000_0000, u32::MAX];
        let value = choices[self.below(choices.len())];
        let (wide, width) = (value.to_ne_bytes(), [1, 2, 4][self.below(3)]);
        let mut bytes = wide[..width].to_vec();
        if self.below(2) == 0 {
            bytes.reverse();
        }
        input.iter_mut().skip(place).zip(bytes).for_each(|(slot, byte)| *slot = byte);
    }

    fn seed(&mut self) -> Vec<u8> {
        let place = self.below(self.seeds.len());
        self.seeds[place].clone()
    }

    fn noise(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| self.rng.next_u64().to_le_bytes()[7]).collect()
    }

    fn below(&mut self, bound: usize) -> usize {
        let bound = u64::try_from(bound).unwrap_or(0);
        usize::try_from(self.rng.below(bound)).unwrap_or(0)
    }
}
