use std::fmt;

use serde::{Deserialize, Serialize};

/// The name under which a volume is attached: `/dev/xvda`, `/dev/sdf`, `/dev/sda1`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct DeviceName(String);

/// A text that EC2 does not take as a device name of an HVM image.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{name}` is not a device name: {help}")]
pub struct BadDeviceName {
    /// The text.
    pub name: String,
    /// What to write instead.
    pub help: String,
}

impl DeviceName {
    /// Reads a name that EC2 takes for HVM images; the error says what to write instead.
    pub fn new(text: &str) -> Result<Self, BadDeviceName> {
        if is_device_name(text) {
            return Ok(Self(text.to_owned()));
        }
        let help = match text.strip_prefix("/dev/") {
            None => format!("a device name begins with /dev/: write `/dev/{}`", text.trim_start_matches('/')),
            Some(name) if name.starts_with("nvme") => {
                "write /dev/xvda for the root, /dev/xvdf and on for data: \
                                                       instances that show NVMe disks map these names"
                    .to_owned()
            }
            Some(name)
                if name.ends_with(|c: char| c.is_ascii_digit())
                    && (name.starts_with("sd") || name.starts_with("xvd")) =>
            {
                "a whole disk has no number at its end; only /dev/sda1 may stand for the root disk".to_owned()
            }
            Some(_) => {
                "names are /dev/xvda or /dev/sda1 for the root, /dev/xvdf to /dev/xvdp or /dev/sdf to \
                        /dev/sdp for data"
                    .to_owned()
            }
        };
        Err(BadDeviceName { name: text.to_owned(), help })
    }

    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The part after `/dev/`, which names the volume's files: `xvda`, `sda1`.
    pub fn file_stem(&self) -> &str {
        self.0.trim_start_matches("/dev/")
    }

    /// The `xvd…` name of the disk: the same for all names of one device (`/dev/sdf` and `/dev/xvdf`, `/dev/sda1` and
    /// `/dev/xvda`).
    pub fn disk(&self) -> String {
        match self.file_stem() {
            "sda1" => "xvda".to_owned(),
            stem => stem.strip_prefix("sd").map_or_else(|| stem.to_owned(), |letter| format!("xvd{letter}")),
        }
    }

    /// Whether both name the same device.
    pub fn same_device(&self, other: &Self) -> bool {
        self.disk() == other.disk()
    }

    /// Whether EC2 names a root volume so: `/dev/xvda`, `/dev/sda1`.
    pub fn is_for_root(&self) -> bool {
        matches!(self.as_str(), "/dev/xvda" | "/dev/sda1")
    }

    /// Whether EC2 recommends the name for data: `/dev/sd[f-p]`, `/dev/xvd[f-p]`.
    pub fn is_for_data(&self) -> bool {
        self.letter().is_some_and(|letter| (b'f'..=b'p').contains(&letter))
    }

    /// Whether the name is one of an instance store volume: `/dev/sd[b-e]`, and `/dev/xvd[b-e]` for the same devices.
    pub fn is_for_instance_store(&self) -> bool {
        self.letter().is_some_and(|letter| (b'b'..=b'e').contains(&letter))
    }

    /// Whether the name is outside the documented list though it is widely used and works: `/dev/xvd[b-d]`.
    pub fn is_undocumented(&self) -> bool {
        matches!(self.as_str(), "/dev/xvdb" | "/dev/xvdc" | "/dev/xvdd")
    }

    /// The letter of a disk that has one only.
    fn letter(&self) -> Option<u8> {
        match self.disk().strip_prefix("xvd")?.as_bytes() {
            [letter] => Some(*letter),
            _ => None,
        }
    }
}

fn is_device_name(text: &str) -> bool {
    let Some(name) = text.strip_prefix("/dev/") else { return false };
    let letters = |text: &[u8]| text.iter().all(u8::is_ascii_lowercase);
    match (name.strip_prefix("xvd").map(str::as_bytes), name.strip_prefix("sd").map(str::as_bytes)) {
        (Some(disk @ [_]), _) => letters(disk),
        (Some(disk @ [b'a'..=b'd', _]), _) => letters(disk),
        (_, Some(b"a1")) => true,
        (_, Some(disk @ [_])) => letters(disk),
        _ => false,
    }
}

impl fmt::Display for DeviceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for DeviceName {
    type Error = BadDeviceName;

    fn try_from(text: String) -> Result<Self, BadDeviceName> {
        Self::new(&text)
    }
}

impl From<DeviceName> for String {
    fn from(name: DeviceName) -> Self {
        name.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documented_names_are_taken_and_others_are_not() {
        for good in [
            "/dev/xvda",
            "/dev/sda1",
            "/dev/sda",
            "/dev/xvdf",
            "/dev/sdp",
            "/dev/xvdaa",
            "/dev/xvddx",
            "/dev/xvdz",
        ] {
            assert_eq!(DeviceName::new(good).unwrap().as_str(), good);
        }
        for bad in [
            "xvda",
            "/dev/",
            "/dev/sdf1",
            "/dev/xvdea",
            "/dev/nvme0n1",
            "/dev/vda",
            "/dev/sdaa",
            "/dev/xvdF",
            "/dev/xvda\n",
        ] {
            assert!(DeviceName::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn one_device_has_several_names() {
        let same = |a: &str, b: &str| DeviceName::new(a).unwrap().same_device(&DeviceName::new(b).unwrap());
        assert!(same("/dev/sdf", "/dev/xvdf"));
        assert!(same("/dev/sda1", "/dev/xvda"));
        assert!(same("/dev/sda1", "/dev/sda"));
        assert!(!same("/dev/sdf", "/dev/xvdg"));
    }

    #[test]
    fn names_tell_what_they_are_for() {
        let name = |text: &str| DeviceName::new(text).unwrap();
        assert!(name("/dev/sda1").is_for_root() && !name("/dev/sda").is_for_root());
        assert!(name("/dev/sdf").is_for_data() && name("/dev/xvdp").is_for_data());
        assert!(!name("/dev/sdq").is_for_data() && !name("/dev/xvdba").is_for_data());
        assert!(name("/dev/sdb").is_for_instance_store() && !name("/dev/sdf").is_for_instance_store());
        assert!(name("/dev/xvdb").is_undocumented() && !name("/dev/xvde").is_undocumented());
    }
}
