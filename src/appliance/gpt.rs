//! The partition table: its last partition takes the rest of the disk.
//!
//! In: the first 34 blocks of a disk, its size. Out: what to write where, or nothing to do.
//! Must not: move or shrink anything; touch a table whose sums are wrong.
//! Read first: UEFI 2.10 section 5.3; image/build wrote the table.

/// Bytes of a block; disks of 4096 are not booted from by GRUB's BIOS half either.
pub const BLOCK: u64 = 512;
/// Of the table at the beginning: protective MBR, header, 128 entries.
pub const TABLE_BYTES: usize = 34 * BLOCK_BYTES;
/// Of its copy at the end: entries, header.
pub const COPY_BYTES: usize = 33 * BLOCK_BYTES;
const BLOCK_BYTES: usize = 512;

const SIGNATURE: &[u8] = b"EFI PART";
const ENTRY_BYTES: usize = 128;
const ENTRIES: usize = 128;
const ENTRIES_BYTES: usize = ENTRY_BYTES * ENTRIES;
const ENTRIES_BLOCKS: u64 = 32;

mod field {
    use std::ops::Range;
    pub(super) const HEADER_SIZE: Range<usize> = 12..16;
    pub(super) const HEADER_SUM: Range<usize> = 16..20;
    pub(super) const OWN: Range<usize> = 24..32;
    pub(super) const OTHER: Range<usize> = 32..40;
    pub(super) const LAST_USABLE: Range<usize> = 48..56;
    pub(super) const ENTRIES: Range<usize> = 72..80;
    pub(super) const COUNT: Range<usize> = 80..84;
    pub(super) const SIZE: Range<usize> = 84..88;
    pub(super) const ENTRIES_SUM: Range<usize> = 88..92;
    /// Of an entry.
    pub(super) const LAST: Range<usize> = 40..48;
}

/// Bytes that go to a block of the disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    pub block: u64,
    pub bytes: Vec<u8>,
}

/// The writes that let the last of the partitions end where the disk of `blocks` ends, in their
/// order: the copy at the end first, so that a power cut leaves one whole table. Empty: it does
/// already. `table`: the first blocks of the disk.
pub fn grow(table: &[u8], blocks: u64) -> Result<Vec<Write>, String> {
    if table.len() < TABLE_BYTES {
        return Err("the partition table is cut short".into());
    }
    let (header, entries) = (&table[BLOCK_BYTES..], &table[2 * BLOCK_BYTES..]);
    let (header, entries) = check(header, entries, 2)?;
    let last_usable = blocks.checked_sub(ENTRIES_BLOCKS + 2).ok_or("the disk is too small")?;
    let ends = entries.chunks(ENTRY_BYTES).map(|entry| u64_at(entry, field::LAST));
    let (place, end) = ends.enumerate().max_by_key(|(_, end)| *end).ok_or("no partitions")?;
    if end >= last_usable {
        return Ok(Vec::new());
    }
    let mut entries = entries.to_vec();
    put(&mut entries[place * ENTRY_BYTES..], field::LAST, last_usable);
    let mut header = header.to_vec();
    put(&mut header, field::LAST_USABLE, last_usable);
    let (last, copy_at) = (blocks - 1, blocks - 1 - ENTRIES_BLOCKS);
    Ok(vec![
        Write { block: copy_at, bytes: entries.clone() },
        Write { block: last, bytes: summed(&header, &entries, last, 1, copy_at) },
        Write { block: 2, bytes: entries.clone() },
        Write { block: 1, bytes: summed(&header, &entries, 1, last, 2) },
    ])
}

/// The writes that make the table at the beginning anew, from its copy in the last blocks of a disk
/// of `blocks`: what a power cut in the middle of `grow` asks for.
pub fn restore(copy: &[u8], blocks: u64) -> Result<Vec<Write>, String> {
    let header = copy.get(ENTRIES_BYTES..).filter(|rest| rest.len() >= BLOCK_BYTES);
    let header = header.ok_or("the copy of the partition table is cut short")?;
    let (header, entries) = check(header, copy, blocks - 1 - ENTRIES_BLOCKS)?;
    Ok(vec![
        Write { block: 2, bytes: entries.to_vec() },
        Write { block: 1, bytes: summed(header, entries, 1, blocks - 1, 2) },
    ])
}

/// A header's block with its places and its sums.
fn summed(header: &[u8], entries: &[u8], own: u64, other: u64, entries_at: u64) -> Vec<u8> {
    let mut header = header.to_vec();
    put(&mut header, field::OWN, own);
    put(&mut header, field::OTHER, other);
    put(&mut header, field::ENTRIES, entries_at);
    header[field::ENTRIES_SUM].copy_from_slice(&crc32(entries).to_le_bytes());
    header[field::HEADER_SUM].fill(0);
    let sum = crc32(&header);
    header[field::HEADER_SUM].copy_from_slice(&sum.to_le_bytes());
    header.resize(BLOCK_BYTES, 0);
    header
}

/// Header and entries without what follows them, if their sums are right.
fn check<'a>(
    header: &'a [u8],
    entries: &'a [u8],
    entries_at: u64,
) -> Result<(&'a [u8], &'a [u8]), String> {
    let (block, entries) = (&header[..BLOCK_BYTES], &entries[..ENTRIES_BYTES]);
    if !block.starts_with(SIGNATURE) {
        return Err("there is no GPT on the disk".into());
    }
    let size = u32_at(block, field::HEADER_SIZE) as usize;
    if !(92..=block.len()).contains(&size) {
        return Err(format!("the partition table is damaged: a header of {size} bytes"));
    }
    let header = &block[..size];
    let mut unsummed = header.to_vec();
    unsummed[field::HEADER_SUM].fill(0);
    if crc32(&unsummed) != u32_at(header, field::HEADER_SUM) {
        return Err("the partition table is damaged: the sum of its header is wrong".into());
    }
    let shape = [field::COUNT, field::SIZE].map(|field| u32_at(header, field) as usize);
    if shape != [ENTRIES, ENTRY_BYTES] || u64_at(header, field::ENTRIES) != entries_at {
        return Err("the partition table is not one that image/build made".into());
    }
    if crc32(entries) != u32_at(header, field::ENTRIES_SUM) {
        return Err("the partition table is damaged: the sum of its entries is wrong".into());
    }
    Ok((header, entries))
}

fn put(header: &mut [u8], field: std::ops::Range<usize>, value: u64) {
    header[field].copy_from_slice(&value.to_le_bytes());
}

fn u32_at(bytes: &[u8], field: std::ops::Range<usize>) -> u32 {
    u32::from_le_bytes(bytes[field].try_into().expect("four bytes"))
}

fn u64_at(bytes: &[u8], field: std::ops::Range<usize>) -> u64 {
    u64::from_le_bytes(bytes[field].try_into().expect("eight bytes"))
}

/// CRC-32 as in IEEE 802.3: the specification's own.
fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = flate2::Crc::new();
    crc.update(bytes);
    crc.sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DISK: usize = 4096;

    /// Two partitions, as sfdisk would lay them.
    fn table() -> Vec<u8> {
        let mut table = vec![0; TABLE_BYTES];
        let mut entry = |place: usize, first: u64, last: u64| {
            let at = 2 * 512 + place * 128;
            table[at] = 1;
            table[at + 32..at + 40].copy_from_slice(&first.to_le_bytes());
            table[at + 40..at + 48].copy_from_slice(&last.to_le_bytes());
        };
        entry(0, 100, 199);
        entry(1, 200, 299);
        let sum = crc32(&table[1024..][..ENTRIES_BYTES]);
        let header = &mut table[512..][..92];
        header[..8].copy_from_slice(SIGNATURE);
        header[12..16].copy_from_slice(&92_u32.to_le_bytes());
        header[72..80].copy_from_slice(&2_u64.to_le_bytes());
        header[80..84].copy_from_slice(&128_u32.to_le_bytes());
        header[84..88].copy_from_slice(&128_u32.to_le_bytes());
        header[88..92].copy_from_slice(&sum.to_le_bytes());
        let sum = crc32(header);
        header[16..20].copy_from_slice(&sum.to_le_bytes());
        table
    }

    fn written(mut table: Vec<u8>, writes: &[Write]) -> Vec<u8> {
        table.resize(DISK * BLOCK_BYTES, 0);
        for write in writes {
            let at = usize::try_from(write.block).unwrap() * BLOCK_BYTES;
            table[at..][..write.bytes.len()].copy_from_slice(&write.bytes);
        }
        table
    }

    #[test]
    fn the_last_partition_takes_the_rest_and_both_tables_say_so() {
        let writes = grow(&table(), DISK as u64).unwrap();
        assert_eq!(writes.iter().map(|it| it.block).collect::<Vec<_>>(), [4063, 4095, 2, 1]);
        let disk = written(table(), &writes);
        assert_eq!(u64_at(&disk[1024 + 128..], field::LAST), DISK as u64 - 34);
        assert_eq!(u64_at(&disk[1024..], field::LAST), 199, "the other one stays");
        assert_eq!(disk[1024..][..ENTRIES_BYTES], disk[4063 * 512..][..ENTRIES_BYTES]);
        assert_eq!(grow(&disk, DISK as u64), Ok(Vec::new()), "once");
    }

    #[test]
    fn a_power_cut_at_any_write_leaves_a_table_to_go_on_with() {
        let writes = grow(&table(), DISK as u64).unwrap();
        for count in 0..=writes.len() {
            let disk = written(table(), &writes[..count]);
            let again = grow(&disk, DISK as u64).unwrap_or_else(|_| {
                let copy = &disk[disk.len() - COPY_BYTES..];
                restore(copy, DISK as u64).expect("the copy was written first")
            });
            let disk = written(disk, &again);
            assert_eq!(grow(&disk, DISK as u64), Ok(Vec::new()), "{count} writes");
        }
    }

    #[test]
    fn what_is_damaged_or_foreign_is_left_alone() {
        let good = table();
        for at in [512, 512 + 13, 512 + 30, 1024 + 128 + 41] {
            let mut bad = good.clone();
            bad[at] ^= 1;
            assert!(grow(&bad, DISK as u64).is_err(), "byte {at}");
        }
        assert!(grow(&good[..600], DISK as u64).is_err());
        assert!(grow(&good, 20).is_err());
    }
}
