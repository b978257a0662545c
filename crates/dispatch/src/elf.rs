//! Just enough of ELF to know what a program needs: 64-bit little-endian files of one machine.

/// What the dynamic loader must bring for a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// The dynamic loader; a library has none, nor has a static program.
    pub interpreter: Option<Vec<u8>>,
    /// DT_NEEDED: names of libraries.
    pub libraries: Vec<Vec<u8>>,
    /// Folders of DT_RUNPATH or DT_RPATH.
    pub folders: Vec<Vec<u8>>,
    /// Where the text of those folders lies in the file.
    pub folder_texts: Vec<std::ops::Range<usize>>,
    /// Where the interpreter's text lies in the file.
    pub interpreter_text: Option<std::ops::Range<usize>>,
}

/// Reads a file's program headers and dynamic section. `None`: no ELF file of this machine, or a damaged one.
pub fn needs(file: &[u8], machine: u16) -> Option<Needs> {
    const PT_LOAD: u64 = 1;
    const PT_DYNAMIC: u64 = 2;
    const PT_INTERP: u64 = 3;
    const DT_NEEDED: u64 = 1;
    const DT_STRTAB: u64 = 5;
    const DT_RPATH: u64 = 15;
    const DT_RUNPATH: u64 = 29;
    if file.get(..6)? != b"\x7fELF\x02\x01" || number(file, 18, 2)? != u64::from(machine) {
        return None;
    }
    if !matches!(number(file, 16, 2)?, 2 | 3) {
        return None;
    }
    let (start, size, count) = (number(file, 32, 8)?, number(file, 54, 2)?, number(file, 56, 2)?);
    let mut needs = Needs::default();
    let mut segments = Vec::new();
    let mut dynamic = None;
    for index in 0..count {
        let at = usize::try_from(start.checked_add(index * size)?).ok()?;
        let word = |offset| number(file, at.checked_add(offset)?, 8);
        let (offset, address, length) = (word(8)?, word(16)?, word(32)?);
        match number(file, at, 4)? {
            PT_LOAD => segments.push((address, offset, length)),
            PT_DYNAMIC => dynamic = Some((offset, length)),
            PT_INTERP => {
                let range =
                    usize::try_from(offset).ok()?..usize::try_from(offset.checked_add(length)?).ok()?;
                let text = file.get(range.clone())?;
                needs.interpreter = Some(text.split(|byte| *byte == 0).next()?.to_owned());
                needs.interpreter_text = Some(range);
            }
            _ => {}
        }
    }
    let Some((offset, length)) = dynamic else { return Some(needs) };
    let mut strings = None;
    let mut entries = Vec::new();
    for index in 0..length / 16 {
        let at = usize::try_from(offset.checked_add(index * 16)?).ok()?;
        let (tag, value) = (number(file, at, 8)?, number(file, at.checked_add(8)?, 8)?);
        match tag {
            0 => break,
            DT_STRTAB => strings = Some(value),
            DT_NEEDED | DT_RPATH | DT_RUNPATH => entries.push((tag, value)),
            _ => {}
        }
    }
    if entries.is_empty() {
        return Some(needs);
    }
    let strings = strings?;
    let (address, offset, _) = segments
        .iter()
        .find(|(address, _, length)| (*address..address.saturating_add(*length)).contains(&strings))?;
    let strings = (strings - address).checked_add(*offset)?;
    for (tag, value) in entries {
        let from = usize::try_from(strings.checked_add(value)?).ok()?;
        let length = file.get(from..)?.iter().position(|byte| *byte == 0)?;
        let text = &file[from..from + length];
        if tag == DT_NEEDED {
            needs.libraries.push(text.to_owned());
        } else {
            needs.folders.extend(text.split(|byte| *byte == b':').map(<[u8]>::to_owned));
            needs.folder_texts.push(from..from + length);
        }
    }
    Some(needs)
}

fn number(file: &[u8], at: usize, bytes: usize) -> Option<u64> {
    let bytes = file.get(at..at.checked_add(bytes)?)?;
    Some(bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Machine;

    #[test]
    fn a_program_tells_its_loader_and_libraries() {
        let own = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        let needs = needs(&own, Machine::HOST.elf()).unwrap();
        assert_eq!(needs.interpreter.unwrap(), Machine::HOST.loader().0.as_bytes());
        assert!(needs.libraries.contains(&b"libc.so.6".to_vec()));
        let text = needs.interpreter_text.unwrap();
        assert_eq!(&own[text.start..text.end - 1], Machine::HOST.loader().0.as_bytes());
    }

    #[test]
    fn the_handler_needs_nothing() {
        assert_eq!(needs(crate::HANDLER, Machine::HOST.elf()), Some(Needs::default()));
    }

    #[test]
    fn damaged_files_are_none() {
        let own = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        for length in (0..1000).chain([4096, 100_000]) {
            let cut = own.get(..length).unwrap_or(&own);
            // Whatever comes of it, it must not panic.
            let _ = needs(cut, Machine::HOST.elf());
        }
        assert_eq!(needs(b"#!/bin/sh\n", Machine::HOST.elf()), None);
        assert_eq!(needs(&own, 0), None);
    }

    /// An ELF file of one segment header and a dynamic section, with these places in its headers.
    fn with_places(headers: u64, dynamic: u64, address: u64, offset: u64) -> Vec<u8> {
        let mut file = vec![0; 64];
        file[..6].copy_from_slice(b"\x7fELF\x02\x01");
        (file[16], file[18]) = (3, 62);
        file[32..40].copy_from_slice(&headers.to_le_bytes());
        (file[54], file[56]) = (56, 2);
        let segment = |kind: u32, offset: u64, address: u64| {
            let words = [u64::from(kind), offset, address, 0, 64, 0, 0];
            words.into_iter().flat_map(u64::to_le_bytes).collect::<Vec<u8>>()
        };
        file.extend(segment(1, offset, address));
        file.extend(segment(2, dynamic, 0));
        // DT_NEEDED 0, DT_STRTAB at the address.
        file.extend([1, 0, 5, address, 0, 0].into_iter().flat_map(u64::to_le_bytes));
        file
    }

    #[test]
    fn places_at_the_end_of_all_numbers_are_none() {
        let good = with_places(64, 176, 0x1000, 0);
        assert_eq!(needs(&good, 62).unwrap().libraries, [b"\x7fELF\x02\x01".to_vec()]);
        for headers in [u64::MAX, u64::MAX - 7, u64::MAX - 31, u64::MAX - 55] {
            assert_eq!(needs(&with_places(headers, 176, 0x1000, 0), 62), None);
        }
        for dynamic in [u64::MAX, u64::MAX - 7, u64::MAX - 15] {
            assert_eq!(needs(&with_places(64, dynamic, 0x1000, 0), 62), None);
        }
        assert_eq!(needs(&with_places(64, 176, 0x1000, u64::MAX), 62), None);
    }
}
