use catalog::{Account, AmiId, ApiError, Home, PermissionChange, RegisterImage, ResourceId};

use super::can_be_shown;
use crate::Target;

const NOW: i64 = 1_767_225_600;

pub(super) const REGISTRATION: Target = Target {
    words: &[
        b"\"Name\":\"web\"",
        b"\"Architecture\":\"arm64\"",
        b"\"BlockDeviceMappings\":[",
        b"\"DeviceName\":\"/dev/xvda\"",
        b"\"Ebs\":{\"SnapshotId\":\"snap-0123456789abcdef0\"",
        b"\"VolumeSize\":18446744073709551615",
        b"\"VirtualName\":\"ephemeral0\"",
        b"\"NoDevice\":\"\"",
        b"\"TagSpecifications\":[",
    ],
    memory_a_byte: 4096,
    ..Target::new("registration", "an input of register-image", 4 << 10, |input| {
        let request = match RegisterImage::from_json(input) {
            Ok(request) => request,
            Err(error) => return can_be_shown(&error),
        };
        let mut account = Account::new(Home::ACCOUNT, NOW);
        let id = match account.register_image(Home::REGION, request, NOW, |_| Some(8)) {
            Ok(id) => id,
            Err(error) => {
                assert_eq!(
                    account,
                    Account::new(Home::ACCOUNT, NOW),
                    "a call that is refused changes nothing"
                );
                return can_be_shown(&error);
            }
        };
        let copied = copy(&mut account, id);
        assert!(copied.is_ok(), "what can be registered can be copied: {copied:?}");
        comes_back(&account);
    })
};

pub(super) const ACCOUNT: Target = Target {
    words: &[
        b"{\"version\":1,\"account\":\"000000000000\",\"drawn\":1,\"regions\":{\"local\":",
        b"\"images\":{\"ami-0123456789abcdef0\":",
        b"\"snapshots\":{\"snap-0123456789abcdef0\":{\"tags\":{\"a\":\"b\"}}}",
        b"\"launch_permissions\":[{\"Group\":\"all\"}]",
        b"\"deprecation_time\":-9223372036854775808",
        b"\"drawn\":18446744073709551615",
    ],
    memory_a_byte: 4096,
    ..Target::new(
        "account",
        "the account of a store: its images and what is said of snapshots",
        8 << 10,
        |input| {
            let mut account = match Account::from_bytes(input) {
                Ok(account) => account,
                Err(error) => return can_be_shown(&error),
            };
            comes_back(&account);
            let ids: Vec<_> = account.images(Home::REGION).map(|image| image.image_id).collect();
            for id in ids {
                let all = catalog::LaunchPermission::everybody();
                let results = [
                    copy(&mut account, id),
                    account
                        .modify_launch_permission(Home::REGION, id, PermissionChange::Add, &[all])
                        .map(drop),
                    account.set_deprecation(Home::REGION, id, Some(i64::MAX), NOW),
                    account.unprotect(Home::REGION, id, NOW),
                    account.delete_tags(Home::REGION, ResourceId::Image(id), &["a=b".to_owned()]).map(drop),
                    account.deregister_image(Home::REGION, id, true, NOW).map(drop),
                ];
                results.iter().filter_map(|result| result.as_ref().err()).for_each(can_be_shown);
            }
            comes_back(&account);
        },
    )
};

fn copy(account: &mut Account, id: AmiId) -> Result<(), ApiError> {
    let copied = account.begin_copy((Home::REGION, id), "eu-west-1", None, None, true, NOW)?;
    account.finish_copy("eu-west-1", &copied)
}

/// An account is read as it was written, and all of it can be described.
fn comes_back(account: &Account) {
    let read = Account::from_bytes(&account.to_bytes());
    assert_eq!(read.as_ref(), Ok(account), "what is written reads the same");
    for region in [Home::REGION, "eu-west-1"] {
        account.images(region).for_each(|image| drop(account.describe(image, NOW)));
    }
}
