//! The kinds of messages, each with a name that editors and scripts can rely on.

use serde::Serialize;

/// What kind of mistake a message is about. As text: its name, which never changes its meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Code {
    name: &'static str,
    what: &'static str,
}

impl Code {
    /// Its name: `unknown-key`.
    pub fn as_str(self) -> &'static str {
        self.name
    }

    /// What it stands for, in a sentence without a full stop.
    pub fn what(self) -> &'static str {
        self.what
    }
}

impl Serialize for Code {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name)
    }
}

/// The codes, and the list of them, from one table.
macro_rules! codes {
    ($($id:ident $name:literal $what:literal)*) => {
        #[allow(non_upper_case_globals, reason = "they read as the variants of an enumeration")]
        impl Code {
            $(#[doc = concat!($what, ".")] pub const $id: Self = Self { name: $name, what: $what };)*
            /// Every code, in the order in which people meet them.
            pub const ALL: &[Self] = &[$(Self::$id),*];
        }
    };
}

codes! {
    NotReadable "not-readable" "A file cannot be read, or is not text"
    EmptyFile "empty-file" "A file holds nothing"
    TooLarge "too-large" "A file, a value or what variables make of it is larger than any recipe"
    NotYaml "not-yaml" "The text is not YAML, or YAML that no recipe needs"
    RepeatedKey "repeated-key" "A key stands twice in a mapping"
    UnknownKey "unknown-key" "A key that the language does not have at this place"
    MissingKey "missing-key" "A key that is needed here is missing"
    WrongType "wrong-type" "Text where a list belongs, and the like"
    WrongValue "wrong-value" "A word that is none of those that the key takes"
    OutOfRange "out-of-range" "A number that is too small or too large"
    Contradiction "contradiction" "Two things are said that cannot both hold"
    Repeated "repeated" "The same thing is listed twice"
    Base "base" "The recipe named by extends cannot be used"
    Variable "variable" "A variable is defined or written in a way that cannot be"
    UnknownVariable "unknown-variable" "A variable that nobody defines"
    Name "name" "The recipe's or the image's name cannot be one"
    Architecture "architecture" "An architecture that is unknown, or that the recipe is not for"
    Mirror "mirror" "A mirror's address cannot be one"
    Kernel "kernel" "A kernel that is none"
    PackageName "package-name" "A package's name cannot be one, or is not there to be dropped"
    PackageVersion "package-version" "A package's version cannot be one, or no repository has it"
    UnknownPackage "unknown-package" "No repository has the package"
    VirtualPackage "virtual-package" "Several packages provide the name"
    PackageConflict "package-conflict" "Packages that cannot be installed together"
    LoginScript "login-script" "A login script that would never run"
    Path "path" "A path in the image cannot be one"
    Source "source" "A file or folder beside the recipe cannot be used"
    FileMode "file-mode" "A file's mode cannot be one"
    Account "account" "A user or group cannot be one, or is not in the image"
    Secret "secret" "A key or login that nobody should find in a recipe or an image"
    Service "service" "A unit's name cannot be one, or no package brings it"
    RunStep "run-step" "A run step has no name or nothing to do"
    Device "device" "A device name cannot be one, or EC2 does not document it"
    RootVolume "root-volume" "Which volume boots is not clear, or it is told what no root can be"
    Size "size" "A size cannot be one, or something does not fit into it"
    Label "label" "A file system's label cannot be one"
    Mount "mount" "A volume cannot be mounted there, or hides files"
    Check "check" "A check that proves nothing, or is about what the recipe does not have"
    Ec2Rule "ec2-rule" "EC2 would refuse it"
    AllowedFinding "allowed-finding" "A finding of the image's lint that is allowed but does not occur"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_a_name_of_its_own() {
        for (index, code) in Code::ALL.iter().enumerate() {
            assert!(Code::ALL[..index].iter().all(|other| other.name != code.name), "{}", code.name);
            assert!(code.name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-'));
            assert!(!code.what.ends_with('.'));
        }
    }
}
