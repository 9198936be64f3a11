//! Random bytes of the kernel.
//!
//! In: how many. Out: bytes that nobody can foretell. Must not: make up others where it has none.
//! Read first: getrandom(2).

pub fn random<const N: usize>() -> Result<[u8; N], String> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|error| format!("no random bytes: {error}"))?;
    Ok(bytes)
}
