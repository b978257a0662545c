use std::fmt;

use serde::{Deserialize, Serialize};

use crate::limits::MAX_EPHEMERAL;
use crate::{DeviceName, SnapshotId, VolumeType};

/// One entry of a block device mapping, in AWS's shape: a device and exactly one of the three others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct BlockDeviceMapping {
    /// Under which name it is attached.
    pub device_name: DeviceName,
    /// An EBS volume.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ebs: Option<Ebs>,
    /// An instance store volume.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub virtual_name: Option<VirtualName>,
    /// Nothing, though an image's mapping has an entry for the device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub no_device: Option<NoDevice>,
}

impl BlockDeviceMapping {
    /// An EBS volume.
    pub fn ebs(device_name: DeviceName, ebs: Ebs) -> Self {
        Self { device_name, ebs: Some(ebs), virtual_name: None, no_device: None }
    }

    /// An instance store volume.
    pub fn instance_store(device_name: DeviceName, virtual_name: VirtualName) -> Self {
        Self { device_name, ebs: None, virtual_name: Some(virtual_name), no_device: None }
    }

    /// Nothing at this device.
    pub fn without(device_name: DeviceName) -> Self {
        Self { device_name, ebs: None, virtual_name: None, no_device: Some(NoDevice) }
    }
}

/// The EBS volume of a mapping's entry, in AWS's shape. What is left out is AWS's default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Ebs {
    /// The snapshot whose content the volume gets; without one it is blank.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot_id: Option<SnapshotId>,
    /// GiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume_size: Option<u64>,
    /// Its type. AWS's default is not the one that people expect, so it is to be written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume_type: Option<VolumeType>,
    /// Provisioned I/O operations each second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub iops: Option<u64>,
    /// MiB/s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub throughput: Option<u64>,
    /// Whether it goes when the instance does. AWS's default: the root does, others do not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delete_on_termination: Option<bool>,
    /// Only without a snapshot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encrypted: Option<bool>,
    /// Not for register-image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kms_key_id: Option<String>,
}

/// The name of an instance store volume: `ephemeral0` to `ephemeral23`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct VirtualName(u8);

/// A number or text that names no instance store volume.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not an instance store volume: they are ephemeral0 to ephemeral{MAX_EPHEMERAL}")]
pub struct BadVirtualName(pub String);

impl VirtualName {
    /// The instance store volume of this number.
    pub fn new(number: u8) -> Result<Self, BadVirtualName> {
        if number > MAX_EPHEMERAL {
            return Err(BadVirtualName(format!("ephemeral{number}")));
        }
        Ok(Self(number))
    }

    /// Its number.
    pub fn number(self) -> u8 {
        self.0
    }
}

impl fmt::Display for VirtualName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ephemeral{}", self.0)
    }
}

impl TryFrom<String> for VirtualName {
    type Error = BadVirtualName;

    fn try_from(text: String) -> Result<Self, BadVirtualName> {
        let number = text.strip_prefix("ephemeral").and_then(|number| number.parse().ok());
        match number.map(Self::new) {
            // A number has one writing: not 00, not +1.
            Some(Ok(name)) if name.to_string() == text => Ok(name),
            _ => Err(BadVirtualName(text)),
        }
    }
}

impl From<VirtualName> for String {
    fn from(name: VirtualName) -> Self {
        name.to_string()
    }
}

/// The empty text that AWS's `NoDevice` takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "&'static str")]
pub struct NoDevice;

impl TryFrom<String> for NoDevice {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, &'static str> {
        if text.is_empty() { Ok(Self) } else { Err("NoDevice takes the empty text alone") }
    }
}

impl From<NoDevice> for &'static str {
    fn from(_: NoDevice) -> Self {
        ""
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instance_store_volumes_have_one_name_each() {
        let read = |text: &str| serde_json::from_value::<VirtualName>(text.into());
        assert_eq!(read("ephemeral0").unwrap(), VirtualName::new(0).unwrap());
        assert_eq!(read("ephemeral23").unwrap().number(), 23);
        for bad in ["ephemeral24", "ephemeral", "ephemeral01", "ephemeral+1", "ephemeral-1", "0"] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn entries_have_the_apis_shape_and_no_other_keys() {
        let device = |text: &str| DeviceName::new(text).unwrap();
        let snapshot = "snap-0123456789abcdef0".parse().unwrap();
        let ebs = Ebs {
            snapshot_id: Some(snapshot),
            volume_size: Some(8),
            volume_type: Some(VolumeType::Gp3),
            delete_on_termination: Some(true),
            ..Ebs::default()
        };
        let mapping = [
            BlockDeviceMapping::ebs(device("/dev/xvda"), ebs),
            BlockDeviceMapping::instance_store(device("/dev/sdb"), VirtualName::new(0).unwrap()),
            BlockDeviceMapping::without(device("/dev/sdc")),
        ];
        let json = serde_json::to_string(&mapping).unwrap();
        assert_eq!(
            json,
            concat!(
                r#"[{"DeviceName":"/dev/xvda","Ebs":{"SnapshotId":"snap-0123456789abcdef0","VolumeSize":8,"#,
                r#""VolumeType":"gp3","DeleteOnTermination":true}},"#,
                r#"{"DeviceName":"/dev/sdb","VirtualName":"ephemeral0"},{"DeviceName":"/dev/sdc","NoDevice":""}]"#
            )
        );
        assert_eq!(serde_json::from_str::<Vec<BlockDeviceMapping>>(&json).unwrap(), mapping);
        for bad in [
            r#"{"DeviceName":"/dev/xvda","Ebs":{"Size":8}}"#,
            r#"{"DeviceName":"xvda","NoDevice":""}"#,
            r#"{"DeviceName":"/dev/xvda","NoDevice":"x"}"#,
            r#"{"NoDevice":""}"#,
        ] {
            assert!(serde_json::from_str::<BlockDeviceMapping>(bad).is_err(), "{bad}");
        }
    }
}
