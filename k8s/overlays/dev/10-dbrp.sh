#!/bin/sh
# Run once by InfluxDB 2's image after its setup: InfluxQL, which the dashboards speak, finds a bucket by a database's name
# (a DBRP mapping). InfluxDB 1 and 3 need none.
set -eu
influx v1 dbrp create \
    --org "$DOCKER_INFLUXDB_INIT_ORG" \
    --token "$DOCKER_INFLUXDB_INIT_ADMIN_TOKEN" \
    --bucket-id "$DOCKER_INFLUXDB_INIT_BUCKET_ID" \
    --db "$DOCKER_INFLUXDB_INIT_BUCKET" \
    --rp autogen \
    --default
