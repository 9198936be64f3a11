//! Atlas's password form: DES in ECB mode under a key that everybody knows, then base64.
//!
//! In: a clear password or Atlas's form of it. Out: the other. Must not: be taken for security: it
//! only keeps a password from being read over a shoulder, and exists so that a `pwds` line of
//! Atlas's configuration can be carried over as it is.
//! Read first: facts/sql.md 1.3; Atlas, script/encrypt.c.

use std::fmt;

use des::Des;
use des::cipher::generic_array::GenericArray;
use des::cipher::{BlockDecrypt, BlockEncrypt, KeyInit};

use super::auth::decode_base64;

/// Why a text is not an encrypted password.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Error {
    NotBase64,
    /// Not whole blocks, or not padded as `encrypt` pads: another key, or cut.
    NotEncrypted,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotBase64 => "not base64: write what `tandem encrypt PASSWORD` prints",
            Self::NotEncrypted => {
                "not encrypted as Atlas does: write what `tandem encrypt PASSWORD` prints"
            }
        })
    }
}

#[must_use]
pub fn encrypt(password: &str) -> String {
    let mut bytes = password.as_bytes().to_vec();
    // PKCS #5: as many bytes as are missing, a whole block when none is.
    let missing = BLOCK_BYTES - bytes.len() % BLOCK_BYTES;
    bytes.resize(bytes.len() + missing, u8::try_from(missing).unwrap_or(0));
    let des = Des::new(&KEY.into());
    for block in bytes.as_chunks_mut::<BLOCK_BYTES>().0 {
        let mut cipher = GenericArray::from(*block);
        des.encrypt_block(&mut cipher);
        *block = cipher.into();
    }
    encode_base64(&bytes)
}

pub fn decrypt(text: &str) -> Result<String, Error> {
    let mut bytes = decode_base64(text).ok_or(Error::NotBase64)?;
    if bytes.is_empty() || !bytes.len().is_multiple_of(BLOCK_BYTES) {
        return Err(Error::NotEncrypted);
    }
    let des = Des::new(&KEY.into());
    for block in bytes.as_chunks_mut::<BLOCK_BYTES>().0 {
        let mut clear = GenericArray::from(*block);
        des.decrypt_block(&mut clear);
        *block = clear.into();
    }
    let padding = bytes.last().copied().unwrap_or(0);
    let length = bytes.len().saturating_sub(padding.into());
    let is_padded = (1..=BLOCK_BYTES).contains(&padding.into())
        && bytes.iter().skip(length).all(|&byte| byte == padding);
    if !is_padded {
        return Err(Error::NotEncrypted);
    }
    bytes.truncate(length);
    String::from_utf8(bytes).map_err(|_| Error::NotEncrypted)
}

fn encode_base64(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for part in bytes.chunks(3) {
        let byte = |at: usize| u32::from(part.get(at).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for (at, shift) in [18, 12, 6, 0].into_iter().enumerate() {
            let place = usize::try_from(bits >> shift & 0x3f).unwrap_or(0);
            let letter = ALPHABET.get(place).copied().unwrap_or(b'=');
            out.push(if at > part.len() { '=' } else { char::from(letter) });
        }
    }
    out
}

const BLOCK_BYTES: usize = 8;

/// The first eight bytes of Atlas's "aCtZlHaUs".
const KEY: [u8; BLOCK_BYTES] = *b"aCtZlHaU";

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

#[cfg(test)]
mod tests {
    use super::*;

    /// facts/sql.md 1.3: made by Atlas's own `encrypt`, the last one from
    /// the second block of the one before it.
    const VECTORS: [(&str, &str); 9] = [
        ("Xp29at5F37", "qtyU1btXOo074Itvx0UR9Q=="),
        ("xp29at5f37", "g3K/G1OAWhs74Itvx0UR9Q=="),
        ("mysql", "TWbz0dlu35U="),
        ("123456", "/iZxz+0GRoA="),
        ("atlas", "KsWNCR6qyNk="),
        ("a", "BqApBYmpr8M="),
        ("app", "CsTF0xptdHU="),
        ("12345678", "A5/cqkRqleYa8s/oWZlMvQ=="),
        ("", "GvLP6FmZTL0="),
    ];

    #[test]
    fn agrees_with_atlas_both_ways() {
        for (clear, encrypted) in VECTORS {
            assert_eq!(encrypt(clear), encrypted, "{clear}");
            assert_eq!(decrypt(encrypted).as_deref(), Ok(clear));
        }
        let long = "p\u{e4}ssword of more than one block";
        assert_eq!(decrypt(&encrypt(long)).as_deref(), Ok(long));
    }

    #[test]
    fn refuses_what_atlas_did_not_make() {
        assert_eq!(decrypt("mysql!"), Err(Error::NotBase64));
        for text in ["", "mysql", "TWbz0dlu35Q=", "qtyU1btXOo0=", "AAAAAAAAAAA="] {
            assert_eq!(decrypt(text), Err(Error::NotEncrypted), "{text}");
        }
    }
}
