/// The candidate that a person most likely meant, if one is close enough.
/// Letter case counts nothing; swapped neighbours count as one change.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let length = word.chars().count();
    let lower = word.to_lowercase();
    if length > 64 {
        return None;
    }
    candidates
        .into_iter()
        .filter(|candidate| candidate.chars().count() <= 64)
        .map(|candidate| (strsim::osa_distance(&lower, &candidate.to_lowercase()), candidate))
        .filter(|(distance, candidate)| *distance <= (length.max(candidate.chars().count()) / 3).max(1))
        .min()
        .map(|(_, candidate)| candidate)
}

/// "did you mean …?", if something is near; else a list of what there is.
pub(crate) fn advice(word: &str, candidates: &[&str], what: &str) -> Option<String> {
    if let Some(near) = nearest(word, candidates.iter().copied()) {
        return Some(format!("did you mean `{near}`?"));
    }
    (!candidates.is_empty()).then(|| format!("{what}: {}", candidates.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_what_was_meant_and_nothing_far_away() {
        let keys = ["packages", "motd", "web", "files", "volumes"];
        assert_eq!(nearest("pakages", keys), Some("packages"));
        assert_eq!(nearest("mtod", keys), Some("motd"));
        assert_eq!(nearest("Files", keys), Some("files"));
        assert_eq!(nearest("network", keys), None);
    }
}
