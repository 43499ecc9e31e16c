import requests
import os

# Replace the empty string with your model id below
model_id = ""
baseten_api_key = os.environ["BASETEN_API_KEY"]

messages = [
 {"role": "user", "content": "What is a mistral?"},
 {"role": "assistant", "content": "A mistral is a type of cold, dry wind that blows across the southern slopes of the Alps from the Valais region of Switzerland into the Ligurian Sea near Genoa. It is known for its strong and steady gusts, sometimes reaching up to 60 miles per hour."},
 {"role": "user", "content": "How does the mistral wind form?"},
]
data = {
 "messages": messages,
 "stream": True,
 "max_new_tokens": 512,
 "temperature": 0.9
}

# Call model endpoint
res = requests.post(
 f"https://model-{model_id}.api.baseten.co/production/predict",
 headers={"Authorization": f"Api-Key {baseten_api_key}"},
 json=data,
 stream=True
)

# Print the generated tokens as they get streamed
for content in res.iter_content():
 print(content.decode("utf-8"), end="", flush=True)
