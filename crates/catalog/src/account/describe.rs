use serde_json::{Map, Value, json};

use super::{Account, Image};
use crate::format_time;

/// A time as EC2 writes it.
fn time(seconds: i64) -> String {
    format_time(seconds).replace('Z', ".000Z")
}

impl Account {
    /// An image as `DescribeImages` has it. Keys come in the order of EC2's own documentation; what EC2 leaves out is left out.
    pub fn describe(&self, image: &Image, now: i64) -> Value {
        let it = &image.registration;
        let mut out = Map::new();
        let mut put = |key: &str, value: Value| {
            if !value.is_null() {
                out.insert(key.to_owned(), value);
            }
        };
        put("PlatformDetails", json!("Linux/UNIX"));
        put("UsageOperation", json!("RunInstances"));
        put("BlockDeviceMappings", json!(it.block_device_mappings));
        put("Description", json!(it.description));
        put("EnaSupport", json!(it.ena_support));
        put("Hypervisor", json!("xen"));
        put("Name", json!(it.name));
        put("RootDeviceName", json!(it.root_device_name));
        put("RootDeviceType", json!("ebs"));
        put("SriovNetSupport", json!(it.sriov_net_support));
        let tags = image.tags.iter().map(|(key, value)| json!({"Key": key, "Value": value}));
        put("Tags", if image.tags.is_empty() { Value::Null } else { tags.collect() });
        put("VirtualizationType", json!(it.virtualization_type));
        put("BootMode", json!(it.boot_mode));
        put("TpmSupport", json!(it.tpm_support));
        put("DeprecationTime", json!(image.deprecation_time.map(time)));
        put("ImdsSupport", json!(it.imds_support));
        put("DeregistrationProtection", json!(image.protection(now)));
        put("SourceImageId", json!(image.source.as_ref().map(|(_, id)| id)));
        put("SourceImageRegion", json!(image.source.as_ref().map(|(region, _)| region)));
        put("ImageId", json!(image.image_id));
        put("ImageLocation", json!(format!("{}/{}", self.id(), it.name)));
        put("State", json!(image.state.as_str()));
        put("OwnerId", json!(self.id()));
        put("CreationDate", json!(time(image.creation_date)));
        put("Public", json!(image.is_public()));
        put("Architecture", json!(it.architecture));
        put("ImageType", json!("machine"));
        Value::Object(out)
    }
}
