use std::collections::BTreeMap;

/// How often programs were started, from the file that the handler writes. It explains, and shapes no byte.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Program starts that ran natively, by path.
    pub native: BTreeMap<String, u64>,
    /// Program starts that were emulated, by path.
    pub emulated: BTreeMap<String, u64>,
}

impl Counts {
    /// Reads the handler's file. Programs in the sandbox may write to it as well: lines that make no sense count nothing.
    pub fn read(bytes: &[u8]) -> Self {
        let mut counts = Self::default();
        for line in bytes.split(|byte| *byte == b'\n') {
            let (by_path, path) = match line.split_first() {
                Some((b'N', path)) => (&mut counts.native, path),
                Some((b'E', path)) => (&mut counts.emulated, path),
                _ => continue,
            };
            *by_path.entry(String::from_utf8_lossy(path).into_owned()).or_insert(0) += 1;
        }
        counts
    }

    /// All native and all emulated starts.
    pub fn totals(&self) -> (u64, u64) {
        (self.native.values().sum(), self.emulated.values().sum())
    }

    /// What was emulated most, most first.
    pub fn most_emulated(&self) -> Vec<(&str, u64)> {
        let mut list: Vec<_> = self.emulated.iter().map(|(path, count)| (path.as_str(), *count)).collect();
        list.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(b.0)));
        list
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_counted_by_program() {
        let counts = Counts::read(b"N/usr/bin/dash\nE/usr/bin/dpkg\nN/usr/bin/dash\n\nX/usr/bin/odd\nE/usr/bin/apt\nE/usr/bin/dpkg\n");
        assert_eq!(counts.totals(), (2, 3));
        assert_eq!(counts.most_emulated(), [("/usr/bin/dpkg", 2), ("/usr/bin/apt", 1)]);
    }
}
