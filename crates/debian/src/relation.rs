//! Relations between packages: `Depends: a (>= 1) | b:any, c`.

use std::cmp::Ordering;
use std::fmt;

use crate::version::{Version, compare};

/// How a version has to compare with the one in a relation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operator {
    /// `<<`
    Earlier,
    /// `<=`
    EarlierOrEqual,
    /// `=`
    Equal,
    /// `>=`
    LaterOrEqual,
    /// `>>`
    Later,
}

impl Operator {
    /// Whether `version` stands in this relation to `bound`.
    pub fn holds(self, version: &str, bound: &str) -> bool {
        let order = compare(version, bound);
        match self {
            Self::Earlier => order == Ordering::Less,
            Self::EarlierOrEqual => order != Ordering::Greater,
            Self::Equal => order == Ordering::Equal,
            Self::LaterOrEqual => order != Ordering::Less,
            Self::Later => order == Ordering::Greater,
        }
    }

    fn sign(self) -> &'static str {
        match self {
            Self::Earlier => "<<",
            Self::EarlierOrEqual => "<=",
            Self::Equal => "=",
            Self::LaterOrEqual => ">=",
            Self::Later => ">>",
        }
    }
}

/// One package that a relation names, borrowed from the field's text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Target<'a> {
    /// The package's name.
    pub name: &'a str,
    /// `any`, `native` or an architecture, when the name has one behind a colon.
    pub qualifier: Option<&'a str>,
    /// The wanted version.
    pub version: Option<(Operator, &'a str)>,
}

impl Target<'_> {
    /// Whether a version fits; every version does when none is asked for.
    pub fn accepts(&self, version: &str) -> bool {
        self.version.is_none_or(|(operator, bound)| operator.holds(version, bound))
    }
}

impl fmt::Display for Target<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)?;
        if let Some(qualifier) = self.qualifier {
            write!(f, ":{qualifier}")?;
        }
        match self.version {
            Some((operator, version)) => write!(f, " ({} {version})", operator.sign()),
            None => Ok(()),
        }
    }
}

/// A relation that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no relation to a package: {what}")]
pub struct RelationError {
    /// The part of the field that is wrong.
    pub text: String,
    /// What is wrong with it.
    pub what: &'static str,
}

/// Reads the value of a relation field: groups that must all hold, each with alternatives in order of preference.
/// Architecture restrictions (`[amd64]`) and build profiles do not occur in binary packages and are refused.
pub fn parse(value: &str) -> Result<Vec<Vec<Target<'_>>>, RelationError> {
    let groups = value.split(',').map(str::trim_ascii).filter(|group| !group.is_empty());
    groups.map(|group| group.split('|').map(|target| parse_target(target.trim_ascii())).collect()).collect()
}

fn parse_target(text: &str) -> Result<Target<'_>, RelationError> {
    let fail = |what| Err(RelationError { text: text.to_owned(), what });
    let end = text.find(|c: char| c.is_ascii_whitespace() || c == '(').unwrap_or(text.len());
    let (name, rest) = text.split_at(end);
    let (name, qualifier) =
        name.split_once(':').map_or((name, None), |(name, qualifier)| (name, Some(qualifier)));
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"+-._".contains(&byte);
    if name.is_empty() || !name.bytes().all(plain) {
        return fail("it does not begin with a package's name");
    }
    if qualifier.is_some_and(|text| {
        text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    }) {
        return fail("nothing readable follows the colon");
    }
    let rest = rest.trim_ascii();
    if rest.is_empty() {
        return Ok(Target { name, qualifier, version: None });
    }
    let Some(inner) = rest.strip_prefix('(').and_then(|rest| rest.strip_suffix(')')) else {
        return fail("a version must stand in round brackets");
    };
    let inner = inner.trim_ascii();
    let digits = inner.find(|c| !"<>=".contains(c)).unwrap_or(inner.len());
    let (sign, version) = inner.split_at(digits);
    // A single < or > is an old way to write <= and >=.
    let operator = match sign {
        "<<" => Operator::Earlier,
        "<=" | "<" => Operator::EarlierOrEqual,
        "=" => Operator::Equal,
        ">=" | ">" => Operator::LaterOrEqual,
        ">>" => Operator::Later,
        _ => return fail("its comparison is none of << <= = >= >>"),
    };
    let version = version.trim_ascii();
    if Version::parse(version).is_err() {
        return fail("its version is none");
    }
    Ok(Target { name, qualifier, version: Some((operator, version)) })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn relations_are_read_with_all_their_parts() {
        let groups =
            parse("libc6 (>= 2.36), python3:any | python (<< 3~),\n default-mta|mail-transport-agent,")
                .unwrap();
        let shown: Vec<Vec<String>> =
            groups.iter().map(|group| group.iter().map(ToString::to_string).collect()).collect();
        assert_eq!(
            shown,
            [
                vec!["libc6 (>= 2.36)"],
                vec!["python3:any", "python (<< 3~)"],
                vec!["default-mta", "mail-transport-agent"],
            ]
        );
        assert_eq!(parse("a(=1)").unwrap()[0][0].version, Some((Operator::Equal, "1")));
        assert!(parse("").unwrap().is_empty());
    }

    #[test]
    fn broken_relations_are_refused() {
        for text in [
            "(>= 1)",
            "a (>= )",
            "a (1)",
            "a (>= 1",
            "a >= 1",
            "a [amd64]",
            "a:",
            "a | | b",
            "a (=> 1)",
            "a (>= 1) b",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "[a-c0-2 ,|():<>=.~-]{0,30}|.{0,30}") {
            if let Ok(groups) = parse(&text) {
                // What was read says the same when it is written and read again.
                let written: Vec<String> = groups.iter().map(|group| {
                    group.iter().map(ToString::to_string).collect::<Vec<_>>().join(" | ")
                }).collect();
                let written = written.join(", ");
                prop_assert_eq!(parse(&written).unwrap(), groups);
            }
        }
    }
}
