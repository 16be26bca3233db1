-- Common questions, in DuckDB's SQL, for an output with the levels
--   site: [site], site_day: [site, date], site_week: [site, week], hours: [weekday, hour]
-- Each statement can be run on its own. Replace tables/ by your output.

-- 1. What was covered? A rate says little if many images failed or show no face.
SELECT site, date, images_listed, images_failed, images_no_face, round(no_face_share, 3) AS no_face_share, faces, faces_uncertain
FROM read_parquet('tables/compliance/level=site_day/groups.parquet')
ORDER BY site, date;

-- 2. What is the rate of each site? With the interval to quote, and with the rate if none, or all, of the images without a face
--    had shown a mask.
SELECT site, any_mask_rate, recommended,
       CASE recommended WHEN 'melded' THEN any_mask_rate_melded_low WHEN 'corrected' THEN any_mask_rate_corrected_low
                        WHEN 'cluster' THEN any_mask_rate_cluster_low WHEN 'wilson' THEN any_mask_rate_low END AS low,
       CASE recommended WHEN 'melded' THEN any_mask_rate_melded_high WHEN 'corrected' THEN any_mask_rate_corrected_high
                        WHEN 'cluster' THEN any_mask_rate_cluster_high WHEN 'wilson' THEN any_mask_rate_high END AS high,
       any_mask_rate_no_face_low AS if_none, any_mask_rate_no_face_high AS if_all
FROM read_parquet('tables/compliance/level=site/groups.parquet')
ORDER BY any_mask_rate;

-- 3. How did it change from week to week? (`maskdet diff` says whether a change is more than chance.)
SELECT site, week, any_mask_rate, any_mask_rate - lag(any_mask_rate) OVER (PARTITION BY site ORDER BY week) AS change, faces
FROM read_parquet('tables/compliance/level=site_week/groups.parquet')
ORDER BY site, week;

-- 4. At what hours is it lowest? Groups with few faces say little.
SELECT weekday, hour, any_mask_rate, faces
FROM read_parquet('tables/compliance/level=hours/groups.parquet')
WHERE faces >= 30
ORDER BY any_mask_rate
LIMIT 10;

-- 5. How much information is lost because faces come in clusters? 5 means that five faces tell as much as one independent face.
SELECT site, clusters, faces, round(any_mask_rate_design_effect, 1) AS design_effect
FROM read_parquet('tables/compliance/level=site/groups.parquet')
ORDER BY design_effect DESC NULLS LAST;

-- 6. Which faces is the model least sure of? Its threshold between a mask and none is 0.575.
SELECT image_uri, face_index, label, probability_mask + coalesce(probability_incorrect, 0) AS probability_worn
FROM read_parquet('tables/predictions/**/*.parquet')
ORDER BY abs(probability_worn - 0.575), image_uri, face_index
LIMIT 20;

-- 7. Why did images fail?
SELECT code, count(*) AS images, min(image_uri) AS example
FROM read_parquet('tables/failures/*.parquet')
GROUP BY code
ORDER BY images DESC, code;
