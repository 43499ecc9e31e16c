curl -X POST " https://app.baseten.co/model_versions/YOUR_MODEL_VERSION_ID/predict" \
     -H "Content-Type: application/json" \
     -H 'Authorization: Api-Key {YOUR_API_KEY}' \
     -d '{
           "model": "pixtral",
           "messages": [
            {
                "role": "user",
                "content": [
                {
                    "type": "text",
                    "text": "What type of animal is this? Answer in French only"
                },
                {
                    "type": "image_url",
                    "image_url": {
                    "url": "https://vetmed.illinois.edu/wp-content/uploads/2021/04/pc-keller-hedgehog.jpg"
                    }
                }
                ]
            }
            ],
           "stream": true,
           "max_tokens": 64,
           "temperature": 0.2
         }' --no-buffer
