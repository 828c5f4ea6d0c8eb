//! The same filter on each Envoy line.

use sluice_tests::{bed::Bed, envoy, objects::Target};

#[tokio::test]
async fn each_envoy_line_holds_and_releases() {
    for version in envoy::tested_versions().unwrap() {
        let target = Target::new("app");
        let bed = Bed::of(std::slice::from_ref(&target)).envoy_version(version).start().await;
        let bed = bed.unwrap_or_else(|error| panic!("Envoy {version}: {error:#}"));
        let held = bed.spawn_get(&target, "/");
        bed.until_held(&target, 1).await.unwrap();
        let app = bed.start_app().await.unwrap();
        bed.wake(&target, &[app.address()]).unwrap();
        let answer = held.await.unwrap().unwrap();
        assert_eq!(
            (answer.status.as_u16(), answer.header("x-keda-http-cold-start")),
            (200, "true"),
            "Envoy {version}"
        );
        let answer = bed.get(&target, "/").await.unwrap();
        assert_eq!(
            (answer.status.as_u16(), answer.header("x-keda-http-cold-start")),
            (200, "false"),
            "Envoy {version}"
        );
    }
}
