"""From records to answers: counts at lines, visits of zones, ways and speeds of people."""
