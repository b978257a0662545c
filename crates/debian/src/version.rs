//! Debian's version numbers and their order: `[epoch:]upstream[-revision]`.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

/// A version, compared as dpkg compares: `1.0~rc1` is before `1.0`, `1.10` after `1.9`, `1:0` after `2`.
///
/// Versions that differ only in leading zeros or an empty revision are equal.
#[derive(Clone)]
pub struct Version(Arc<str>);

/// A text that is no version.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no version: {what}")]
pub struct VersionError {
    /// The text.
    pub text: String,
    /// What is wrong with it.
    pub what: &'static str,
}

impl Version {
    /// Reads a version; the rules are dpkg's.
    pub fn parse(text: &str) -> Result<Self, VersionError> {
        let fail = |what| Err(VersionError { text: text.to_owned(), what });
        let rest = match text.split_once(':') {
            Some((epoch, rest)) => {
                if epoch.is_empty() || epoch.len() > 9 || !epoch.bytes().all(|byte| byte.is_ascii_digit()) {
                    return fail("the epoch before the colon is no small number");
                }
                rest
            }
            None => text,
        };
        let (upstream, revision) = rest.rsplit_once('-').map_or((rest, None), |(up, rev)| (up, Some(rev)));
        if upstream.is_empty() {
            return fail("nothing stands where the upstream version belongs");
        }
        if revision == Some("") {
            return fail("nothing follows the last dash");
        }
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b".+~".contains(&byte);
        if !upstream.bytes().all(|byte| plain(byte) || byte == b'-' || byte == b':') {
            return fail("only letters, digits and . + - ~ : may be in it");
        }
        if !revision.unwrap_or_default().bytes().all(plain) {
            return fail("only letters, digits and . + ~ may follow the last dash");
        }
        Ok(Self(text.into()))
    }

    /// The version as it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn split(text: &str) -> (&str, &str, &str) {
    let (epoch, rest) = text.split_once(':').unwrap_or(("", text));
    let (upstream, revision) = rest.rsplit_once('-').unwrap_or((rest, ""));
    (epoch.trim_start_matches('0'), upstream, revision)
}

/// A version without the mark of a rebuild for one architecture alone: `1.0-2` for `1.0-2+b1`.
pub fn source_version(version: &str) -> &str {
    match version.rsplit_once("+b") {
        Some((source, number)) if !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()) => {
            source
        }
        _ => version,
    }
}

/// Compares two texts as versions, without checking that they are.
pub fn compare(a: &str, b: &str) -> Ordering {
    let ((epoch_a, up_a, rev_a), (epoch_b, up_b, rev_b)) = (split(a), split(b));
    (epoch_a.len().cmp(&epoch_b.len()))
        .then_with(|| epoch_a.cmp(epoch_b))
        .then_with(|| compare_part(up_a.as_bytes(), up_b.as_bytes()))
        .then_with(|| compare_part(rev_a.as_bytes(), rev_b.as_bytes()))
}

/// Where a character that is no digit sorts: `~` before the end, the end before letters, letters before the rest.
fn rank(byte: Option<&u8>) -> i32 {
    match byte {
        None => 0,
        Some(b'~') => -1,
        Some(byte) if byte.is_ascii_digit() => 0,
        Some(byte) if byte.is_ascii_alphabetic() => i32::from(*byte),
        Some(byte) => i32::from(*byte) + 256,
    }
}

fn compare_part(mut a: &[u8], mut b: &[u8]) -> Ordering {
    let digits = |part: &[u8]| part.iter().take_while(|byte| byte.is_ascii_digit()).count();
    while !a.is_empty() || !b.is_empty() {
        while a.first().is_some_and(|byte| !byte.is_ascii_digit())
            || b.first().is_some_and(|byte| !byte.is_ascii_digit())
        {
            let order = rank(a.first()).cmp(&rank(b.first()));
            if order != Ordering::Equal {
                return order;
            }
            (a, b) = (a.get(1..).unwrap_or_default(), b.get(1..).unwrap_or_default());
        }
        let (number_a, rest_a) = a.split_at(digits(a));
        let (number_b, rest_b) = b.split_at(digits(b));
        let without_zeros = |number: &[u8]| number.iter().take_while(|digit| **digit == b'0').count();
        let number_a = &number_a[without_zeros(number_a)..];
        let number_b = &number_b[without_zeros(number_b)..];
        let order = number_a.len().cmp(&number_b.len()).then_with(|| number_a.cmp(number_b));
        if order != Ordering::Equal {
            return order;
        }
        (a, b) = (rest_a, rest_b);
    }
    Ordering::Equal
}

impl Ord for Version {
    fn cmp(&self, other: &Self) -> Ordering {
        compare(&self.0, &other.0)
    }
}

impl PartialOrd for Version {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Version {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Version {}

impl Hash for Version {
    fn hash<H: Hasher>(&self, state: &mut H) {
        // Only what equal versions surely have in common: the letters and signs of the upstream part.
        let (_, upstream, _) = split(&self.0);
        upstream.bytes().filter(|byte| !byte.is_ascii_digit()).for_each(|byte| state.write_u8(byte));
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Version({})", self.0)
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use proptest::prelude::*;
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;

    use super::*;

    #[test]
    fn known_pairs_are_in_order() {
        let ascending = [
            "0~~",
            "0~",
            "0",
            "0+b1",
            "0.1",
            "1.0~alpha",
            "1.0~beta1",
            "1.0~rc1-1",
            "1.0",
            "1.0-0.1",
            "1.0-1~bpo12+1",
            "1.0-1",
            "1.0-1+b1",
            "1.0-1+deb13u1",
            "1.0-1.1",
            "1.0-2",
            "1.0-10",
            "1.0+dfsg-1",
            "1.0.1-1",
            "1.2a",
            "1.2b",
            "1.2+x",
            "1.9",
            "1.10",
            "2024.1",
            "1:0.1",
            "1:1",
            "2:0~",
            "10:1",
        ];
        for (i, a) in ascending.iter().enumerate() {
            for (j, b) in ascending.iter().enumerate() {
                assert_eq!(compare(a, b), i.cmp(&j), "{a} {b}");
            }
        }
        for (a, b) in [("1.0", "1.0-0"), ("0:1", "1"), ("1.00", "1.0"), ("1.0-00", "1.0"), ("007", "7")] {
            assert_eq!(compare(a, b), Ordering::Equal, "{a} {b}");
        }
    }

    #[test]
    fn texts_that_are_no_versions_are_refused() {
        for text in ["", ":1", "a:1", "1:", "-1", "1-", "1 2", "1_2", "1-a:b", "99999999999:1", "1\n", "é"] {
            assert!(Version::parse(text).is_err(), "{text:?}");
        }
        for text in ["1", "1:2-3-4", "0~", "1.0+dfsg1-2~bpo1", "1:1:1-1"] {
            assert_eq!(Version::parse(text).unwrap().as_str(), text);
        }
    }

    fn some_version() -> impl Strategy<Value = String> {
        ("(1:|0:|)", "[0-9][0-9a-b.+~-]{0,5}", "(-[0-9ab.+~]{1,3}|)").prop_map(|(epoch, up, rev)| {
            let up = up.trim_end_matches('-');
            format!("{epoch}{up}{rev}")
        })
    }

    proptest! {
        #[test]
        fn the_order_is_total_and_equal_versions_hash_alike(a in some_version(), b in some_version(), c in some_version()) {
            use std::hash::BuildHasher;
            prop_assert_eq!(compare(&a, &b), compare(&b, &a).reverse());
            if compare(&a, &b) != Ordering::Greater && compare(&b, &c) != Ordering::Greater {
                prop_assert_ne!(compare(&a, &c), Ordering::Greater);
            }
            let (a, b) = (Version::parse(&a).unwrap(), Version::parse(&b).unwrap());
            if a == b {
                let state = std::hash::RandomState::new();
                prop_assert_eq!(state.hash_one(&a), state.hash_one(&b));
            }
        }

        #[test]
        fn any_text_can_be_compared(a in ".{0,12}", b in ".{0,12}") {
            prop_assert_eq!(compare(&a, &b), compare(&b, &a).reverse());
        }
    }

    #[test]
    fn dpkg_agrees_on_random_pairs() {
        if Command::new("dpkg").arg("--version").output().is_err() {
            workbench::left_out("dpkg is not on this machine, no order of versions was compared with it");
            return;
        }
        let mut runner = TestRunner::deterministic();
        for _ in 0..150 {
            let mut draw = || some_version().new_tree(&mut runner).unwrap().current();
            let (a, b) = (draw(), draw());
            let operator = match compare(&a, &b) {
                Ordering::Less => "lt",
                Ordering::Equal => "eq",
                Ordering::Greater => "gt",
            };
            let status =
                Command::new("dpkg").args(["--compare-versions", &a, operator, &b]).status().unwrap();
            assert!(status.success(), "dpkg does not say {a} {operator} {b}");
        }
    }
}
