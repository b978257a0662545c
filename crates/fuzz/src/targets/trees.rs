use block::Content;
use tree::Tree;

use super::can_be_shown;
use crate::Target;

pub(super) const TREE: Target = Target {
    words: &[b"bakehouse tree 1\n", b"etc", b"../", b"\x00\x00\xed\x03\x00\x00\x00\x00\x00\x01"],
    ..Target::new("tree", "a Tree that a cache keeps", 4 << 10, |input| {
        match Tree::from_bytes(input, &|id, len| Some(Content::new(id, len, std::sync::Arc::new(Vec::new()))))
        {
            Ok(tree) => {
                let bytes = tree.to_bytes();
                let content = |id, len| Some(Content::new(id, len, std::sync::Arc::new(Vec::new())));
                let again = Tree::from_bytes(&bytes, &content);
                assert_eq!(again.as_ref(), Ok(&tree), "a tree is read as it was written");
                assert_eq!(again.map(|tree| tree.to_bytes()), Ok(bytes));
            }
            Err(error) => can_be_shown(&error),
        }
    })
};
